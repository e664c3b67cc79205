-- Lets the present step end, as soon as its pause is over and its checks pass.
-- A new value of the annotation is one command: who and when, and the revision and step that were seen.
-- Argo CD does not tell a script who has clicked; its own Event (ResourceActionRan) does.
local os = require("os")
local key = "canarium.dev/approve"
local value = "argocd " .. os.date("!%Y-%m-%dT%XZ")
local canary = (obj.status or {}).canary
if canary ~= nil then
  value = value .. " revision=" .. canary.revision
end
local rollout = (obj.status or {}).rollout
if rollout ~= nil then
  value = value .. " step=" .. rollout.step
end
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
if obj.metadata.annotations[key] == value then
  value = value .. " again" -- within one second
end
obj.metadata.annotations[key] = value
return obj
