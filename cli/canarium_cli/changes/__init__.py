"""What a change in git would do: `canarium diff`.

`git` gives the tree as it was, `pairing` finds each object in both trees, `planning` compares its two states by the
operator's own core, `render` writes it down. Nothing is known here of what a cluster does just now: a rollout under
way, revisions that failed before.
"""
