-- Which commands apply now. One that is given all the same changes nothing: the Event CommandRefused says why.
local status = obj.status or {}
local rollout = status.rollout
local paused = rollout ~= nil and rollout.pausedBy ~= nil and rollout.pausedBy ~= ""
local paused_in_spec = obj.spec.rollout ~= nil and obj.spec.rollout.paused == true

local failed = false
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Stalled" and condition.status == "True" then
    failed = status.phase == "Aborted" or condition.reason == "RevisionFailedBefore"
  end
end

local approvable = rollout ~= nil and rollout.blockedOn == "AwaitingApproval"

return {
  approve = {disabled = not approvable, displayName = "Approve the step", iconClass = "fa fa-fw fa-check"},
  pause = {disabled = rollout == nil or paused, displayName = "Pause", iconClass = "fa fa-fw fa-pause"},
  resume = {disabled = not paused or paused_in_spec, displayName = "Resume", iconClass = "fa fa-fw fa-play"},
  abort = {disabled = rollout == nil, displayName = "Abort: all traffic to stable", iconClass = "fa fa-fw fa-undo"},
  retry = {disabled = not failed, displayName = "Retry the failed version", iconClass = "fa fa-fw fa-redo"}
}
