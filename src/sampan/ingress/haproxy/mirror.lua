-- Copies of requests for other backends: what comes back is dropped, and the request itself never waits for any of it.
--
-- Copies are sent by a few tasks that go on from one to the next and end a while after the last: HAProxy 2.6 keeps some 800 bytes of each
-- task that was ever begun, so a task for each copy would use up the memory.

local SOCKET = "unix@/mirror.sock" -- in the directory that is the root of this process
local MOST_WAITING = 256
local MOST_TASKS = 8
local TIMEOUT = 10000 -- milliseconds until a mirror must have answered
local PAUSE, LINGER = 20, 10000 -- milliseconds
local LONGEST_BODY = 15000 -- as much as a buffer surely holds
local SENT = {GET = "get", HEAD = "head", POST = "post", PUT = "put", DELETE = "delete"} -- all that the client can send
local BODILESS = {GET = true, HEAD = true, DELETE = true}
local OF_THE_CONNECTION = {
    connection = true, expect = true, te = true, trailer = true, upgrade = true,
    ["content-length"] = true, ["keep-alive"] = true, ["transfer-encoding"] = true,
}

local services = Map.new(os.getenv("SAMPAN_INGRESS") .. "/services.map", Map._str)
local waiting, first, last = {}, 1, 0
local shares, shared = {}, 0
local tasks, idle, sent = 0, 0, 0

local function send(copy)
    local client = core.httpclient()
    pcall(client[copy.method], client, copy.asked)
    sent = sent + 1
    if sent % 64 == 0 then
        collectgarbage() -- Lua does not see how large a client is
    end
end

local function work()
    local lingered = 0
    while true do
        if first <= last then
            local copy = waiting[first]
            waiting[first] = nil
            first, lingered = first + 1, 0
            send(copy)
        elseif lingered >= LINGER then
            break
        else
            lingered, idle = lingered + PAUSE, idle + 1
            core.msleep(PAUSE)
            idle = idle - 1
        end
    end
    tasks = tasks - 1
end

-- What is sent on, but for whom; nil for what cannot be copied.
local function copied(txn)
    local method = txn.f:method()
    local length = tonumber(txn.f:req_hdr("content-length") or "")
    if not SENT[method] or txn.f:req_hdr("upgrade") or txn.f:req_hdr("transfer-encoding") then
        return nil
    end
    local body = nil
    if length and length > 0 then
        body = txn.f:req_body()
        if length > LONGEST_BODY or #body < length then
            return nil
        end
    elseif not length and not BODILESS[method] then
        return nil
    end
    local headers = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not OF_THE_CONNECTION[name] then
            headers[name] = {}
            for i, value in pairs(values) do
                headers[name][i + 1] = value
            end
        end
    end
    return SENT[method], headers, body, txn.f:pathq()
end

-- Whether this request is one of the `part` of every `whole`: the sum decides, so that the share is right after few requests, too.
local function drawn(name, part, whole)
    if shared > 10000 then
        shares, shared = {}, 0 -- most of them are of routes that are gone
    end
    if not shares[name] then
        shares[name], shared = math.random(whole) - 1, shared + 1
    end
    local sum = shares[name] + part
    shares[name] = sum >= whole and sum - whole or sum
    return sum >= whole
end

-- `txn.mirror` says for whom: backends with how many of how many requests each gets, as `b1=1=1,b2=10=100`.
core.register_action("mirror", {"http-req"}, function(txn)
    local method, headers, body, path = copied(txn)
    if not method then
        return
    end
    local route = txn:get_var("txn.route") or ""
    for backend, part, whole in string.gmatch(txn:get_var("txn.mirror") or "", "([^,=]+)=(%d+)=(%d+)") do
        local name = route .. "=" .. backend .. "=" .. part
        if drawn(name, tonumber(part), tonumber(whole)) and last - first < MOST_WAITING then
            local own = {["x-sampan-mirror"] = {backend}, ["x-sampan-mirror-service"] = {services:lookup(backend) or ""}}
            for name, values in pairs(headers) do
                own[name] = own[name] or values
            end
            last = last + 1
            waiting[last] = {
                method = method,
                asked = {url = "http://mirror" .. path, dst = SOCKET, headers = own, body = body, timeout = TIMEOUT},
            }
            if idle == 0 and tasks < MOST_TASKS then
                tasks = tasks + 1
                core.register_task(work)
            end
        end
    end
end)
