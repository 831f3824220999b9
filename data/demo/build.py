"""Builds the bundled policies, from the authored corpus to the model card: `python data/demo/build.py`.

Needs `pip install -e ".[train]"`; takes about an hour on two CPU cores, more on those without AMX. Seeds are fixed.
Every stage that is done leaves a note in the work folder, so a build that was stopped goes on where it was; `--again
STAGE` does that stage and all after it anew.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

# Nothing is fetched: all models are made here.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRACKIO_DISABLED", "1")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[0] = str(ROOT)  # run as a script: the packages are beside data/, not beside this file

import typer  # noqa: E402
import yaml  # noqa: E402

from data.demo import card, corpus, training  # noqa: E402
from engine import Engine, bank  # noqa: E402
from engine.bank_file import BankFile  # noqa: E402
from engine.config import Config, PolicySettings, RewardSettings  # noqa: E402
from engine.prompts import read_prompts  # noqa: E402

CONFIG = ROOT / "data" / "configs" / "demo.yaml"
ABOUT = "The bundled policies have 5 million parameters and know 96 household topics; they are for trying the desk."
PROMPTS = ROOT / "data" / "prompts" / "demo.jsonl"
TOKENS = 6_500_000
REWARD_PAIRS = 4000
# Phrasings for training whose answers may be sampled, and those among them that say when a policy stops; of these, and
# of the held-out phrasings, so many are taken (every third, every second).
NUMBERED, STOPPING = 544, 64
EVERY = {"training": 3, "stopping": 2, "held-out": 3}
# Shown on the page's first screen; the other held-out prompts follow.
EXAMPLES = 6


class Build:
    """The stages in their order; each leaves a dictionary of figures for the model card."""

    def __init__(self, work: Path, out: Path) -> None:
        self.work, self.out = work, out
        self.topics = corpus.load_topics()
        self.train, self.held_out = corpus.phrasings(self.topics)

    def stages(self) -> dict:
        rewards = {f"reward-{name}": (self.reward, name) for name in training.OBJECTIVES}
        policies = {f"policy-{name}": (self.policy, name) for name in training.OBJECTIVES}
        return {
            "tokenizer": (self.tokenizer,),
            "prompts": (self.prompts,),
            "base": (self.base,),
            **rewards,
            "samples": (self.samples,),
            "scores": (self.scores,),
            **policies,
            "config": (self.config,),
            "bank": (self.bank,),
            "card": (self.card,),
        }

    def tokenizer(self) -> dict:
        training.train_tokenizer(self.topics, self.out / "base")
        return {}

    def prompts(self) -> dict:
        """The held-out phrasings, for evaluation; first, as examples, some that are far apart in the corpus.

        Of those the harmless ones come first: the page opens with the first of all.
        """
        step = len(self.held_out) // EXAMPLES
        first = [self.held_out[step * i + step // 2] for i in range(EXAMPLES)]
        first.sort(key=lambda asked: asked[1].risky)
        rows = [*first, *(asked for asked in self.held_out if asked not in first)]
        PROMPTS.parent.mkdir(exist_ok=True)
        PROMPTS.write_text(
            "".join(
                json.dumps({"prompt": question, "topic": topic.topic, "risky": topic.risky}) + "\n"
                for question, topic in rows
            )
        )
        return {"held_out": len(rows), "phrasings": len(self.train) + len(self.held_out)}

    def base(self) -> dict:
        training.train_base(self.train, self.out / "base", self.work / "base", TOKENS)
        return {"tokens": TOKENS, "perplexity": training.perplexity(self.held_out, self.out / "base")}

    def reward(self, objective: str) -> dict:
        return training.train_reward(
            objective,
            self.train,
            self.held_out,
            self.out / "base",
            self.out / "rewards" / objective,
            self.work / "rewards" / objective,
            REWARD_PAIRS,
        )

    def _engine(self, rewards: list[RewardSettings]) -> Engine:
        """Return an engine on the base alone."""
        unused = PolicySettings(name="base", objective="none", system_prompt="unused")
        return Engine(Config(name="samples", base=str(self.out / "base"), policies=[unused], rewards=rewards))

    def asked(self) -> list[training.Asked]:
        """Return the prompts whose answers are sampled, spread over the topics."""
        numbered = [self.train[i * len(self.train) // NUMBERED][0] for i in range(NUMBERED)]
        step = NUMBERED // STOPPING
        stopping = set(numbered[step // 2 :: step][:STOPPING])
        wanted = [("stopping" if prompt in stopping else "training", prompt) for prompt in numbered]
        wanted += [("held-out", prompt) for prompt, _ in self.held_out]
        rows = [training.Asked(number, split, prompt) for number, (split, prompt) in enumerate(wanted)]
        by_split = {split: [row for row in rows if row.split == split][::every] for split, every in EVERY.items()}
        return [row for rows in by_split.values() for row in rows]

    def samples(self) -> dict:
        """Sample answers of the reference: what the policies learn from, are stopped by and are measured with."""
        asked = self.asked()
        with self._engine([]) as engine:
            training.sample_reference(engine, asked, training.SAMPLES_PER_PROMPT, self.work / "samples.jsonl")
        return {split: sum(row.split == split for row in asked) for split in EVERY}

    def scores(self) -> dict:
        rewards = [
            RewardSettings(objective=name, kind="classifier", model=str(self.out / "rewards" / name))
            for name in training.OBJECTIVES
        ]
        with self._engine(rewards) as engine:
            statistics = training.score_samples(engine, self.work / "samples.jsonl", self.work / "scores.jsonl")
        return {"statistics": statistics}

    def _statistics(self) -> dict[str, dict[str, float]]:
        return json.loads((self.work / "scores.done").read_text())["statistics"]

    def policy(self, objective: str) -> dict:
        return training.train_policy(
            objective,
            self.work / "samples.jsonl",
            self.work / "scores.jsonl",
            self._statistics()[objective],
            self.out / "base",
            self.out / objective,
            self.work / "policies" / objective,
        )

    def config(self) -> dict:
        """data/configs/demo.yaml, with the rewards' mean and standard deviation under the reference."""
        statistics = self._statistics()
        config = {
            "name": "demo",
            "about": ABOUT,
            "base": "../demo/base",
            "dtype": "auto",
            "device": "auto",
            "policies": [
                {"name": name, "objective": name, "adapter": f"../demo/{name}"} for name in training.OBJECTIVES
            ],
            "rewards": [
                {
                    "objective": name,
                    "kind": "classifier",
                    "model": f"../demo/rewards/{name}",
                    "mean": statistics[name]["mean"],
                    "std": statistics[name]["std"],
                }
                for name in training.OBJECTIVES
            ],
            "prompts": "../prompts/demo.jsonl",
        }
        CONFIG.parent.mkdir(exist_ok=True)
        CONFIG.write_text(
            "# The bundled policies; written by data/demo/build.py.\n"
            + yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=120)
        )
        return {}

    def bank(self) -> dict:
        """The bank that ships, so that the page has expected rewards at once: `python -m engine solve --ship`."""
        for stale in (CONFIG.parent / "banks").glob("demo-*.jsonl"):
            stale.unlink()
        with Engine.from_config(CONFIG) as engine:
            file = BankFile(engine.config, bank.SAMPLING, bank.proposals(engine))
            prompts = read_prompts(PROMPTS)[: bank.PROMPTS]
            bank.collect(engine, prompts, bank.RESPONSES, bank.SAMPLING, file=file)
            file.ship(prompts)
        return {}

    def card(self) -> dict:
        figures = {
            name: json.loads((self.work / f"{name}.done").read_text()) for name in self.stages() if name != "card"
        }
        return card.write(self.topics, figures, CONFIG, self.out / "README.md")


def main(
    work: Annotated[Path, typer.Option(help="where what is needed only while building is kept")] = ROOT
    / "build"
    / "demo",
    again: Annotated[str | None, typer.Option(help="do this stage and all after it anew")] = None,
    until: Annotated[str | None, typer.Option(help="stop after this stage")] = None,
) -> None:
    """Build the bundled policies; stages that are done are not done again."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    work.mkdir(parents=True, exist_ok=True)
    build = Build(work, HERE)
    stages = build.stages()
    for name in (again, until):
        if name is not None and name not in stages:
            raise typer.BadParameter(f"no stage is called '{name}'; there are {', '.join(stages)}")
    if again:
        for name in list(stages)[list(stages).index(again) :]:
            (work / f"{name}.done").unlink(missing_ok=True)
            for left in (work / name, work / name.replace("reward-", "rewards/").replace("policy-", "policies/")):
                shutil.rmtree(left, ignore_errors=True)
            if name in ("samples", "scores"):
                (work / f"{name}.jsonl").unlink(missing_ok=True)
    for name, (stage, *arguments) in stages.items():
        done = work / f"{name}.done"
        if not done.exists():
            logging.info("%s ...", name)
            start = time.monotonic()
            figures = {**stage(*arguments), "seconds": round(time.monotonic() - start)}
            done.write_text(json.dumps(figures, indent=2) + "\n")
        logging.info("%s: done", name)
        if name == until:
            break


if __name__ == "__main__":
    typer.run(main)
