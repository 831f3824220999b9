"""Build the bundled policies, from the authored corpus to the model card: `python data/demo/build.py`.

Needs `pip install -e ".[train]"`; takes about an hour on two CPU cores, longer on those without AMX. Seeds are fixed.
Each finished stage leaves a note in the work folder, so that an interrupted build resumes there; `--again STAGE`
repeats that stage and all later ones.
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
from engine import Engine  # noqa: E402
from engine.bank import collection  # noqa: E402
from engine.bank.storage import BankFile  # noqa: E402
from engine.config import Config, PolicySettings  # noqa: E402
from engine.prompts import read_prompts  # noqa: E402
from engine.reward_kind import RewardSettings  # noqa: E402
from engine.rewards.classifier import ClassifierSettings  # noqa: E402

CONFIG = ROOT / "data" / "configs" / "demo.yaml"
ABOUT = "The bundled policies have 5 million parameters and know 96 household topics; they are for trying the desk."
PROMPTS = ROOT / "data" / "prompts" / "demo.jsonl"
TOKENS = 6_500_000
REWARD_PAIRS = 4000
SAMPLED_PROMPTS = 500
SAMPLES_PER_PROMPT = 8
# Shown on the page's first screen; the other held-out prompts follow.
EXAMPLES = 6


class Build:
    """The stages of the build; each returns a dictionary of figures for the model card."""

    def __init__(self, work: Path, out: Path) -> None:
        self.work, self.out = work, out
        self.topics = corpus.load_topics()
        self.train, self.held_out = corpus.phrasings(self.topics)

    def stages(self) -> dict:
        """Return {name: (method, *arguments)} in the order of execution."""
        rewards = {f"reward-{name}": (self.reward, name) for name in training.OBJECTIVES}
        policies = {f"policy-{name}": (self.policy, name) for name in training.OBJECTIVES}
        return {
            "tokenizer": (self.tokenizer,),
            "prompts": (self.prompts,),
            "base": (self.base,),
            **rewards,
            "samples": (self.samples,),
            **policies,
            "config": (self.config,),
            "bank": (self.bank,),
            "card": (self.card,),
        }

    def tokenizer(self) -> dict:
        """Train the tokenizer."""
        training.train_tokenizer(self.topics, self.out / "base")
        return {}

    def prompts(self) -> dict:
        """Write the held-out phrasings, for evaluation, beginning with examples that are far apart in the corpus.

        Harmless examples come first, since the page opens with the first prompt.
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
        """Train the base model and measure its perplexity."""
        training.train_base(self.train, self.out / "base", self.work / "base", TOKENS)
        return {"tokens": TOKENS, "perplexity": training.perplexity(self.held_out, self.out / "base")}

    def reward(self, objective: str) -> dict:
        """Train the reward model of an objective."""
        return training.train_reward(
            objective,
            self.train,
            self.held_out,
            self.out / "base",
            self.out / "rewards" / objective,
            self.work / "rewards" / objective,
            REWARD_PAIRS,
        )

    def _rewards(self, statistics: dict[str, dict[str, float]]) -> list[RewardSettings]:
        return [
            ClassifierSettings(
                objective=name,
                kind="classifier",
                model=str(self.out / "rewards" / name),
                mean=statistics.get(name, {}).get("mean", 0.0),
                std=statistics.get(name, {}).get("std", 1.0),
            )
            for name in training.OBJECTIVES
        ]

    def samples(self) -> dict:
        """Sample responses of the reference to training prompts, with their rewards, for the policies' training."""
        config = Config(
            name="samples",
            base=str(self.out / "base"),
            policies=[PolicySettings(name="base", objective="none", system_prompt="unused")],
            rewards=self._rewards({}),
        )
        step = len(self.train) / SAMPLED_PROMPTS
        questions = [self.train[int(i * step)][0] for i in range(SAMPLED_PROMPTS)]
        with Engine(config) as engine:
            training.sample_reference(engine, questions, SAMPLES_PER_PROMPT, self.work / "samples.jsonl")
        return {"statistics": training.reward_statistics(self.work / "samples.jsonl")}

    def policy(self, objective: str) -> dict:
        """Train the policy of an objective."""
        samples = self.work / "samples.jsonl"
        work = self.work / "policies" / objective
        return training.train_policy(objective, samples, self.out / "base", self.out / objective, work)

    def config(self) -> dict:
        """Write data/configs/demo.yaml, with the mean and standard deviation of the reference's rewards."""
        statistics = json.loads((self.work / "samples.done").read_text())["statistics"]
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
                {"objective": name, "kind": "classifier", "model": f"../demo/rewards/{name}", **statistics[name]}
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
        """Sample and bundle the bank, as `python -m engine solve --ship` does.

        The page then has expected rewards at once.
        """
        for stale in (CONFIG.parent / "banks").glob("demo-*.jsonl"):
            stale.unlink()
        with Engine.from_config(CONFIG) as engine:
            file = BankFile(engine.config, collection.SAMPLING, collection.proposals(engine))
            prompts = read_prompts(PROMPTS)[: collection.PROMPTS]
            collection.collect(engine, prompts, collection.RESPONSES, collection.SAMPLING, file=file)
            file.ship(prompts)
        return {}

    def card(self) -> dict:
        """Write the model card from the stages' figures and an evaluation."""
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
    """Build the bundled policies; finished stages are not repeated."""
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
            if name == "samples":
                (work / "samples.jsonl").unlink(missing_ok=True)
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
