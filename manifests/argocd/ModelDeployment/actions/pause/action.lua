-- Keeps weight and step; checks go on.
-- A new value of the annotation is one command: who and when, and the revision that was seen.
-- Argo CD does not tell a script who has clicked; its own Event (ResourceActionRan) does.
local os = require("os")
local key = "canarium.dev/pause"
local value = "argocd " .. os.date("!%Y-%m-%dT%XZ")
local canary = (obj.status or {}).canary
if canary ~= nil then
  value = value .. " revision=" .. canary.revision
end
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
if obj.metadata.annotations[key] == value then
  value = value .. " again" -- within one second
end
obj.metadata.annotations[key] = value
return obj
