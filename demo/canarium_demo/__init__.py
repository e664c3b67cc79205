"""The demo: a good model version promoted and a bad one taken back, on a real cluster with real requests.

`__main__` reads the command line and calls the acts in order: `installation` makes a cluster with Canarium in it,
`story` plays the rollouts, `report` judges what was measured. Everything that is reported is observed from outside, as
a user would: from the objects in the API server (`world`) and from the answers of the gateway (`tally`).
"""
