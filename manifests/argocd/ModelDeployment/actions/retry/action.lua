-- Lets a failed revision be tried once more.
-- A new value of the annotation is one command: who and when.
-- Argo CD does not tell a script who has clicked; its own Event (ResourceActionRan) does.
local os = require("os")
local key = "canarium.dev/retry"
local value = "argocd " .. os.date("!%Y-%m-%dT%XZ")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
if obj.metadata.annotations[key] == value then
  value = value .. " again" -- within one second
end
obj.metadata.annotations[key] = value
return obj
