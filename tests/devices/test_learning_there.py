"""Every registered part on an accelerator: it runs, it computes what the CPU does, it waits little.

The bars: Python waits at most once per update and once per step of the environments, and a batch
crosses in one copy. docs/gpu.md lists what each agent needs.
"""

from __future__ import annotations

from typing import Any

import pretended
import pytest
import torch
from coach.core.registry import entries
from coach.runners.experiment import build_experiment
from coach.runners.updates import updates
from pretended import NAME
from rig import Trained, differences, merged, on_cpu, on_device, preset

pytestmark = pytest.mark.skipif(bool(pretended.UNAVAILABLE), reason=pretended.UNAVAILABLE)

#: Kernels of the CPU are not those of the wrapped tensors, so sums round differently.
TOLERANCE = 2e-5


def network(middleware: str = "identity", **settings: Any) -> dict[str, Any]:
    """Settings of a network with a middleware."""
    return {"network": {"middleware": middleware, **settings}}


def q_head(head: Any, **settings: Any) -> dict[str, Any]:
    """Settings of a dqn with that head."""
    return {"agent": {"network": {"heads": {"q": head}}, **settings}}


KINDS = (
    "agent",
    "embedder",
    "exploration",
    "head",
    "memory",
    "middleware",
    "optimizer",
    "sampler",
)
ACTOR_CRITIC = {"heads": {"policy": "categorical", "value": "value"}}
NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}

#: Agent and what is set beside the defaults; the agents themselves are added below.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "recurrent actor_critic": ("actor_critic", {"agent": network("lstm", **ACTOR_CRITIC)}),
    "recurrent ppo": (
        "ppo",
        {"agent": network("gru", **ACTOR_CRITIC), "memory": {"batch_size": 16}},
    ),
    "recurrent r2d2": (
        "r2d2",
        {
            "agent": network("lstm", heads={"q": "q"}),
            "memory": {"type": "sequence_replay", "sampler": "prioritized"},
        },
    ),
    "ppo, normalised": ("ppo", {"agent": network("mlp", **ACTOR_CRITIC, **NORMALIZED)}),
    "ppo, whole episodes": ("ppo", {"memory": {"type": "episodes"}}),
    "ppo, one batch": ("ppo", {"memory": {"batch_size": None}, "agent": {"value_clip": 0.2}}),
    "ppo, box": ("ppo", {"environment": {"kwargs": {"action": "box"}}}),
    "ppo, multidiscrete": ("ppo", {"environment": {"kwargs": {"action": "multidiscrete"}}}),
    "ppo, multibinary": (
        "ppo",
        {"environment": {"kwargs": {"action": "multibinary", "observation": "numbers"}}},
    ),
    "ppo, pictures": (
        "ppo",
        {
            "environment": {"kwargs": {"observation": "picture"}},
            "agent": {"network": {**ACTOR_CRITIC, "embedder": "impala_cnn"}},
        },
    ),
    "dqn, pictures": ("dqn", {"environment": {"kwargs": {"observation": "picture"}}}),
    "dqn, more pictures": (
        "dqn",
        {
            "environment": {"kwargs": {"observation": "picture"}},
            "agent": {"network": {"heads": {"q": "q"}, "embedder": {"type": "cnn"}}},
        },
    ),
    "dqn, dict with masks": ("dqn", {"environment": {"kwargs": {"observation": "dict"}}}),
    "dqn, n-step, mixed": ("dqn", {"memory": {"n_step": 3}}),
    "dqn, normalised": ("dqn", {"agent": network(heads={"q": "q"}, **NORMALIZED)}),
    "dqn, noisy": ("dqn", q_head({"type": "dueling_q", "noisy": True}, exploration="greedy")),
    "dqn, masked ensemble": (
        "dqn",
        q_head({"type": "ensemble_q", "share": 0.5}, exploration="bootstrapped"),
    ),
    "dqn, optimism": ("dqn", q_head("ensemble_q", exploration="ucb")),
    "nec, learned entries": (
        "nec",
        {"agent": {"network": {"heads": {"q": {"type": "dnd_q", "entry_lr": 0.1}}}}},
    ),
    **{
        f"dqn, {sampler}": ("dqn", {"memory": {"sampler": sampler}})
        for sampler in ("prioritized", "rank", "balanced", "episodic", "uniform")
    },
    **{
        f"dqn, {head}": ("dqn", q_head(head))
        for head in (
            "q",
            "dueling_q",
            "categorical_q",
            "quantile_q",
            "implicit_quantile_q",
            "proposed_quantile_q",
            "ensemble_q",
        )
    },
    **{
        f"dqn, {exploration}": ("dqn", {"agent": {"exploration": exploration}})
        for exploration in ("boltzmann", "epsilon_ladder", "parameter_noise", "greedy", "uniform")
    },
    **{
        f"naf, {exploration}": ("naf", {"agent": {"exploration": exploration}})
        for exploration in ("gaussian", "ornstein_uhlenbeck")
    },
    "dqn, rmsprop": ("dqn", {"optimizer": {"type": "rmsprop", "centered": True, "momentum": 0.9}}),
    "dqn, sgd": ("dqn", {"optimizer": {"type": "sgd", "momentum": 0.9}}),
}
for entry in entries("agent"):
    CASES[entry.name] = (entry.name, {})

#: What copies more than the observations in a step, at most.
UPLOADS_PER_STEP = {
    "dqn, masked ensemble": 2,  # a new episode has another member
    "naf, ornstein_uhlenbeck": 2,  # its noise is made on the CPU
    "recurrent actor_critic": 2,  # which environments begin anew
    "recurrent ppo": 2,
    "recurrent r2d2": 2,
}


def settings(case: str) -> dict[str, Any]:
    """The preset of a case."""
    agent, change = CASES[case]
    made = preset(agent, {key: value for key, value in change.items() if key != "optimizer"})
    return {**made, "optimizer": change.get("optimizer", made["optimizer"])}


def check_bars(case: str, run: Trained) -> None:
    """Fail where Python waited or copied more often than is allowed."""
    updating, acting = run.updating, run.acting
    assert updating.calls > 0
    assert acting.calls > 0
    assert updating.waits.total() <= updating.calls, updating.waits
    assert updating.uploads.total() <= updating.calls, updating.uploads
    assert acting.most_waits <= 1, acting.waits
    assert acting.most_uploads <= UPLOADS_PER_STEP.get(case, 1), acting.uploads
    if CASES[case][0] != "nec":  # writing its dictionaries takes several looks at them
        assert not run.observing.waits, run.observing.waits
    assert run.observing.most_uploads <= 3, run.observing.uploads


@pytest.mark.parametrize("case", CASES)
def test_it_learns_what_the_cpu_does_and_waits_little(case: str) -> None:
    there, here = on_device(settings(case)), on_cpu(settings(case))
    agent = there.experiment.agent
    assert {t.device.type for t in (*agent.parameters(), *agent.buffers())} == {NAME}
    assert there.experiment.learner.version == here.experiment.learner.version > 0
    apart = differences(there, here)
    assert max(apart.values()) < TOLERANCE, apart
    check_bars(case, there)


@pytest.mark.parametrize("agent", [entry.name for entry in entries("agent")])
def test_it_runs_where_copies_wait_and_numbers_have_32_bits(agent: str) -> None:
    """As on MPS: nothing is page-locked, and float64 is refused."""
    change = {}
    if agent in ("ppo", "actor_critic"):
        change = {"agent": {"network": {**ACTOR_CRITIC, **NORMALIZED}}}
    there = on_device(preset(agent, change), asynchronous=False, without_double=True)
    assert there.experiment.learner.version > 0
    assert all(torch.isfinite(v).all() for k, v in there.weights.items() if "squares" not in k)


def test_priorities_are_filed_while_the_next_update_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with pretended.pretending():
        preset_there = merged(settings("dqn, rank"), {"run": {"device": NAME}})
        experiment = build_experiment(preset_there)
        learner, memory = experiment.learner, experiment.memory
        step, feedback = learner.step, memory.feedback
        monkeypatch.setattr(learner, "step", lambda *a: (told.append("step"), step(*a))[1])
        monkeypatch.setattr(memory, "feedback", lambda *a: (told.append("file"), feedback(*a))[1])
        while not told:
            memory.write(experiment.source.collect())
            list(updates(learner, memory, lambda: False, 0))
        for _ in range(7):
            memory.write(experiment.source.collect())
        told.clear()
        made = list(updates(learner, memory, lambda: False, 0))
    assert len(made) == 7
    assert told == ["step", *["step", "file"] * 6, "file"]


def test_every_registered_part_is_among_the_cases() -> None:
    """A new part has to be added above."""
    found: set[tuple[str, str]] = set()
    for case in CASES:
        experiment = build_experiment(settings(case))
        agent, memory = experiment.agent, experiment.memory
        parts = [*agent.modules(), getattr(agent, "exploration", None), memory]
        parts += [getattr(memory, "sampler", None), *experiment.learner.settings.values()]
        names = ((getattr(p, "kind", ""), getattr(p, "registered_name", "")) for p in parts)
        found |= set(names)
        experiment.source.close()
    known = {
        (kind, entry.name)
        for kind in KINDS
        for entry in entries(kind)
        if entry.module.startswith("coach.")  # other tests may have registered parts of their own
    }
    assert not known - found
