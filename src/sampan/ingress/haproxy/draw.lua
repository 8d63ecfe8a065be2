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
