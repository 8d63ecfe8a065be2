-- What rules of HAProxy's cannot say: which of several routes of one place a request is for, and what happens to it on the way.
-- All that belongs to a route stands in maps, which change while we run; texts there are percent-encoded.

local directory = os.getenv("SAMPAN_INGRESS")
local function map(name, kind)
    return Map.new(directory .. "/" .. name .. ".map", kind)
end
local settings, candidates = map("settings", Map._str), map("candidates", Map._str)
local exact, prefix = map("exact", Map._str), map("prefix", Map._beg)
local scopes, MOST_LABELS = map("scopes", Map._str), 7 -- that a star stands for
local LONGEST_TEXT = 2048 -- of what is held against patterns (see pattern_cost.py)
local hosts, regex, patterns = map("hosts", Map._str), map("regex", Map._reg), map("patterns", Map._reg)

local function decoded(text)
    return (string.gsub(text, "%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end))
end

local function split(text, by)
    local found = {}
    for part in string.gmatch(text, "[^" .. by .. "]+") do
        found[#found + 1] = part
    end
    return found
end

-- ---- which route

local function value_of(txn, where, name)
    if where == "header" then
        return txn.f:req_fhdr(name)
    elseif where == "path" then
        return txn:get_var("txn.path")
    end
    for part in string.gmatch(txn.f:query() or "", "[^&]+") do
        local key, value = string.match(part, "^([^=]*)=?(.*)$")
        if decoded((string.gsub(key, "+", " "))) == name then
            return decoded((string.gsub(value, "+", " ")))
        end
    end
end

local checks = {}

function checks.method(txn, wanted)
    return txn.f:method() == wanted[1]
end

function checks.is(txn, wanted) -- where, name, value
    return value_of(txn, wanted[1], decoded(wanted[2])) == decoded(wanted[3] or "")
end

function checks.like(txn, wanted) -- where, name, name of the pattern
    local value = value_of(txn, wanted[1], decoded(wanted[2]))
    return value ~= nil and #value <= LONGEST_TEXT and patterns:lookup(wanted[3] .. "|" .. value) ~= nil
end

function checks.canary(txn, wanted) -- weight, total, header, its value
    local value = wanted[3] and txn.f:req_fhdr(decoded(wanted[3]))
    if value and wanted[4] then
        if value == decoded(wanted[4]) then
            return true
        end
    elseif value == "always" then
        return true
    elseif value == "never" then
        return false
    end
    return math.random() * tonumber(wanted[2]) < tonumber(wanted[1])
end

local function meets(txn, conditions)
    for i = 2, #conditions do
        local parts = split(conditions[i], "=")
        if not checks[table.remove(parts, 1)](txn, parts) then
            return false
        end
    end
    return true
end

-- The route that a name leads to: itself, or the first of several whose conditions are met.
local function route(txn, name)
    if string.sub(name, 1, 1) ~= "c" then
        return name
    end
    local i = 1
    while true do
        local text = candidates:lookup(name .. "." .. i)
        if text == nil then
            return nil
        end
        local parts = split(text, "&")
        if meets(txn, parts) then
            return parts[1]
        end
        i = i + 1
    end
end

local function in_host(txn, host, path)
    local name = exact:lookup(host .. path)
    local found = name and route(txn, name)
    if found then
        return found
    end
    local generation = hosts:lookup(host)
    name = generation and #path <= LONGEST_TEXT and regex:lookup(generation .. "|" .. path)
    found = name and route(txn, name)
    if found then
        return found
    end
    local rest = path .. "/"
    while rest do
        name = prefix:lookup(host .. rest)
        if name == nil then
            return nil
        end
        found = route(txn, name)
        if found then
            return found
        end
        -- On to what is shorter than the prefix that was found: element by element a long path would take for ever.
        local length = tonumber(candidates:lookup(name .. ".0") or #rest - 1)
        rest = string.match(string.sub(rest, 1, length), "^(.*/)[^/]*$")
    end
end

-- Where the first place that fits has routes with conditions: the first route that is met, from there on to more general places.
core.register_action("choose", {"http-req"}, function(txn)
    local path = txn:get_var("txn.path")
    for _, name in ipairs({"host", "wildcard", "suffix2", "suffix3", "suffix4", "suffix5", "suffix6", "suffix7", "any"}) do
        local key = "txn." .. name .. "_key"
        local host = txn:get_var(key)
        local found = host and in_host(txn, host, path)
        if found then
            txn:set_var("txn.route", found)
            return
        end
    end
    txn:unset_var("txn.route")
end)

core.register_action("choose_default", {"http-req"}, function(txn)
    local found = route(txn, txn:get_var("txn.route"))
    if found then
        txn:set_var("txn.route", found)
    else
        txn:unset_var("txn.route")
    end
end)

-- Whether a connection was made for another listener than that of the host which is asked.
core.register_action("misdirected", {"http-req"}, function(txn)
    local scope, rest = txn:get_var("txn.scope") .. "|", txn:get_var("txn.sni")
    local found = scopes:lookup(scope .. rest)
    for _ = 1, MOST_LABELS do
        rest = found == nil and rest and string.match(rest, "^[^.]+%.(.+)$")
        found = rest and scopes:lookup(scope .. "*." .. rest) or found
    end
    if (found or scopes:lookup(scope .. "*")) ~= txn:get_var("txn.chosen") then
        txn:set_var("txn.misdirected", true)
    end
end)

-- One of several backends, by weight: "b1:90,b2:10" becomes "b1" nine times out of ten.
core.register_converters("draw", function(text)
    local total, found = 0, {}
    for name, weight in string.gmatch(text, "([^:,]+):(%d+)") do
        total = total + tonumber(weight)
        found[#found + 1] = {name, total}
    end
    local drawn = math.random() * total
    for _, one in ipairs(found) do
        if drawn < one[2] then
            return one[1]
        end
    end
    return found[#found][1]
end)

-- ---- what happens on the way

local function setting(txn, name)
    local text = settings:lookup(txn:get_var("txn.route") .. "." .. name)
    return text and decoded(text)
end

-- "4:10.1.2.3" in binary digits, so that a network is a prefix.
core.register_converters("bits", function(address)
    local mapped = string.match(address, "^::ffff:(%d+%.%d+%.%d+%.%d+)$")
    address = mapped or address
    local bytes = {}
    if string.find(address, ":", 1, true) then
        local head, tail = string.match(address, "^(.-)::(.*)$")
        local left, right = split(head or address, ":"), split(tail or "", ":")
        local groups = {}
        for _, g in ipairs(left) do groups[#groups + 1] = tonumber(g, 16) end
        for _ = 1, 8 - #left - #right do groups[#groups + 1] = 0 end
        for _, g in ipairs(right) do groups[#groups + 1] = tonumber(g, 16) end
        for _, g in ipairs(groups) do
            bytes[#bytes + 1] = g >> 8
            bytes[#bytes + 1] = g & 255
        end
    else
        for _, b in ipairs(split(address, ".")) do bytes[#bytes + 1] = tonumber(b) end
    end
    local digits = {}
    for _, b in ipairs(bytes) do
        for shift = 7, 0, -1 do digits[#digits + 1] = (b >> shift) & 1 end
    end
    return (#bytes == 4 and "4:" or "6:") .. table.concat(digits)
end)

-- "4:/foo/bar" without as many characters; with "4/:" what is left of nothing is "/".
core.register_converters("after", function(text)
    local count, root, path = string.match(text, "^(%d+)(/?):(.*)$")
    local rest = string.sub(path, tonumber(count) + 1)
    return rest == "" and root or rest
end)

-- The changes of headers that a route wants, as one text.
local function changes(txn, which)
    local found, i = {}, 1
    while true do
        local text = settings:lookup(txn:get_var("txn.route") .. "." .. which .. "." .. i)
        if text == nil then
            return table.concat(found, "&")
        end
        found[i] = text
        i = i + 1
    end
end

-- HAProxy has little room for more than a client sent, and does not say when it is used up: whether all of the changes could be made,
-- as far as there is a way to count headers.
local function change(text, http, verbs, count)
    for _, one in ipairs(split(text, "&")) do
        local parts = split(one, "=")
        local verb, name = parts[1], decoded(parts[2])
        local before = count and verb == "add" and count(name) or 0
        verbs[verb](http, name, decoded(parts[3] or ""))
        if count and verb ~= "remove" and count(name) <= before then
            return false
        end
    end
    return true
end

core.register_action("redirect", {"http-req"}, function(txn)
    local tls = txn.f:req_hdr("x-forwarded-proto") == "https"
    local scheme = setting(txn, "redirect-scheme") or (tls and "https" or "http")
    local host = setting(txn, "redirect-host") or string.gsub(txn.f:req_hdr("host") or "", ":%d+$", "")
    local port = setting(txn, "redirect-port")
    if port == nil and setting(txn, "redirect-scheme") == nil then
        if setting(txn, "redirect-host") then
            port = txn.f:req_hdr("x-forwarded-port")
        else
            port = string.match(txn.f:req_hdr("host") or "", ":(%d+)$")
        end
    end
    if (scheme == "http" and port == "80") or (scheme == "https" and port == "443") then
        port = nil
    end
    local query, path = txn.f:query() or "", setting(txn, "redirect-path")
    local cut = setting(txn, "redirect-cut")
    if cut then
        path = (setting(txn, "redirect-prefix") or "") .. string.sub(txn:get_var("txn.path"), tonumber(cut) + 1)
        path = path == "" and "/" or path
    elseif path == nil then
        path = txn.f:path()
    end
    if query ~= "" and not string.find(path, "?", 1, true) then
        path = path .. "?" .. query
    end
    local reply = txn:reply()
    reply:set_status(tonumber(setting(txn, "redirect")))
    -- Rules for answers are not asked about this one; there is no header in it that could be set anew or removed.
    local function add(answer, name, value)
        if string.lower(name) ~= "location" then -- which says where it leads
            answer:add_header(name, value)
        end
    end
    change(changes(txn, "response"), reply, {set = add, add = add, remove = function() end})
    reply:add_header("location", scheme .. "://" .. host .. (port and ":" .. port or "") .. path)
    txn:done(reply)
end)

core.register_action("request_headers", {"http-req"}, function(txn)
    local done = change(changes(txn, "request"), txn.http, {
        set = txn.http.req_set_header, add = txn.http.req_add_header, remove = function(http, name) http:req_del_header(name) end,
    }, function(name) return txn.f:req_fhdr_cnt(name) end)
    if not done then
        txn:set_var("txn.no_room", true)
    end
end)

-- Those of the answer are found out beforehand: until it comes the route may have gone.
core.register_action("keep_response_headers", {"http-req"}, function(txn)
    txn:set_var("txn.response_changes", changes(txn, "response"))
end)

core.register_action("response_headers", {"http-res"}, function(txn)
    local done = change(txn:get_var("txn.response_changes"), txn.http, {
        set = txn.http.res_set_header, add = txn.http.res_add_header, remove = function(http, name) http:res_del_header(name) end,
    }, function(name) return txn.f:res_fhdr_cnt(name) end)
    if not done then
        txn:set_var("txn.no_room", true)
    end
end)

-- Whether a host is such as has these parts in this order, with something between any two. No longer than the host is in parts.
local function like(host, parts)
    local first, last = parts[1], parts[#parts]
    if string.sub(host, 1, #first) ~= first then
        return false
    end
    local at = #first
    for i = 2, #parts - 1 do
        local _, to = string.find(host, parts[i], at + 2, true)
        if to == nil then
            return false
        end
        at = to
    end
    return #host - #last > at and string.sub(host, #host - #last + 1) == last
end

-- Whether the origin that asks is one that a route allows by a star: "https&-&*.b.test" has scheme, port and host.
core.register_action("origin", {"http-req"}, function(txn)
    local scheme, host, port = string.match(txn:get_var("txn.origin") or "", "^(%a+)://([^:/?#]+):?(%d*)$")
    local i = 1
    while scheme do
        local text = settings:lookup(txn:get_var("txn.route") .. ".origin." .. i)
        if text == nil then
            return
        end
        local wanted = split(text, "&")
        if decoded(wanted[1]) == scheme and (wanted[2] == "-" and "" or wanted[2]) == port then
            local parts = {}
            for part in string.gmatch(wanted[3] .. "*", "([^*]*)%*") do
                parts[#parts + 1] = decoded(part)
            end
            if like(host, parts) then
                txn:set_var("txn.allow_origin", txn:get_var("txn.origin"))
                return
            end
        end
        i = i + 1
    end
end)

-- The value of the cookie that keeps a client's endpoint.
core.register_action("cookie", {"http-req"}, function(txn)
    local name = setting(txn, "cookie")
    for part in string.gmatch(txn.f:req_fhdr("cookie") or "", "[^;]+") do
        local key, value = string.match(part, "^%s*([^=]*)=(.*)$")
        if key == name then
            txn:set_var("txn.cookie", value)
            return
        end
    end
end)

core.register_action("authenticate", {"http-req"}, function(txn)
    if txn.f:http_auth(txn:get_var("txn.users")) == 1 then
        txn:set_var("txn.known", true)
    end
end)

-- Ends a request whose body is longer than its route allows and that did not say so beforehand.
local Limit = {id = "limit", flags = filter.FLT_CFG_FL_HTX}
Limit.__index = Limit

function Limit.new()
    return setmetatable({seen = 0}, Limit)
end

function Limit:http_headers(txn, message)
    if message:is_resp() then
        return filter.CONTINUE
    end
    self.most = tonumber(txn:get_var("txn.max_body") or "")
    if self.most and txn.f:req_hdr("content-length") == nil then
        filter.register_data_filter(self, message.channel)
    end
    return filter.CONTINUE
end

function Limit:http_payload(txn, message)
    if message:is_resp() then
        return
    end
    local more = message:input()
    if self.seen + more > self.most then
        more = #(message:body() or "") -- without the end and what trails it, which were counted, too
    end
    self.seen = self.seen + more
    if self.seen > self.most then
        txn:set_var("txn.too_long", true)
        error("the body is too long", 0) -- the one way to end a request from here; its status is set later
    end
end

core.register_filter("limit", Limit, function(limit)
    return limit
end)
