-- Health of a ModelDeployment. It says what kstatus says to Flux and Helm of the same object: Degraded where that is
-- Failed, Healthy where that is Current, and Progressing or Suspended where that is InProgress.
-- Only conditions that are named here are read: others, and conditions to come, decide nothing.
local hs = {status = "Progressing", message = "not seen by the operator yet"}
local status = obj.status
if status == nil or status.observedGeneration == nil then
  return hs
end
if status.observedGeneration ~= obj.metadata.generation then
  if status.observedGeneration >= 0 then
    hs.message = "the operator has not seen the present spec yet"
  end
  return hs
end

local found = {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.status == "True" then
    found[condition.type] = condition
  end
end

hs.message = status.message
if found.Reconciling ~= nil then
  if status.phase == "Paused" then
    hs.status = "Suspended"
  end
elseif found.Stalled ~= nil then
  hs.status = "Degraded"
  hs.message = found.Stalled.message
elseif found.Ready ~= nil then
  hs.status = "Healthy"
  hs.message = found.Ready.message
end
return hs
