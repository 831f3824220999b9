"""The desk: faders, panels that answer at once, a radar, and four rating buttons."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import gradio as gr

from app.charts import radar as radar_chart
from app.charts.marks import build_legend
from app.charts.plotly_component import figure, plotted
from app.html import caption, message, rewards_table
from app.schemas.desk_state import DeskState
from app.services.app_state import Desk
from app.services.generation_run import SIDES, UNREAD_FOR, Run, new_seed
from app.services.panel_choice import FADERS, chosen_mixture, chosen_sampling
from app.services.visitor import session, visitor_of
from app.ui.balance import Balance, build_expected
from app.ui.controls import (
    RATINGS,
    Controls,
    Outputs,
    Steering,
    build_faders,
    build_more,
    build_prompt,
    whole_number,
)
from app.ui.conversation import Conversation, build_conversation
from app.ui.faders import build_history, connect_history
from app.ui.mixture_controls import Changes, MixtureControls
from app.ui.panels import build_panels
from app.ui.radar_target import build_target
from app.ui.rating import RatingButtons
from app.ui.restore import Restore
from app.ui.saved_mixtures import Keeping, build_keeping
from app.ui.share import Sharing, build_sharing
from app.ui.shortcuts import labelled
from app.ui.steering import Steer
from app.ui.token_inspector import build_drawer
from engine import InputError
from engine.inference.finish_reason import FinishReason
from engine.prompts import read_prompts

log = logging.getLogger("mixdesk")

EXAMPLES = 6
RATEABLE_FOR = 600  # seconds: the responses of a closed page, which may have been loaded again after an outage
RADAR_HINT = (
    "Outward is better. The dashed ring is what the reference usually gets; each ring is one standard deviation."
)


class DeskTab:
    """The page's components, and the handlers of what people do with them."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        config = desk.engine.config
        self.colours, self.objectives = desk.colours, desk.engine.reward_set.objectives
        self.examples = read_prompts(config.prompts)[:EXAMPLES] if config.prompts else []

    # ------------------------------------------------------------------------------------------------------ the page

    def build(self, tab: gr.Tab, tabs: gr.Tabs) -> Steering:
        """What other tabs may move, read and write."""
        policies, accents = self.desk.engine.config.policies, self.desk.accents
        with gr.Row(elem_id="desk", equal_height=False):
            with gr.Column(elem_id="mix", min_width=200):
                faders, channels, menu = build_faders(policies, list(accents.values()), self.objectives)
                undo, redo = build_history()
                with gr.Accordion(labelled("Save and share", "shelf"), open=False, elem_id="shelf"):
                    keeping, sharing = build_keeping(), build_sharing()
                more = build_more(min(512, self.desk.engine.policy_set.context // 2))
            with gr.Column(elem_id="stage", min_width=280):
                conversation = build_conversation()
                prompt, generate, stop = build_prompt(self.examples)
                unfamiliar = gr.HTML(
                    "",
                    elem_id="unfamiliar",
                    html_template='<p role="status" aria-live="polite">${value}</p>',
                )
                panels = build_panels(accents)
                with gr.Row(elem_id="ratings"):
                    ratings = {
                        choice: gr.Button(
                            labelled(label, f"rate-{choice}"), interactive=False, elem_id=f"rate-{choice}", min_width=90
                        )
                        for choice, label in RATINGS.items()
                    }
                with gr.Row(elem_id="said"):
                    status = gr.HTML(
                        message("Press Generate: two mixtures answer side by side, and you say which is better."),
                        elem_id="status",
                        html_template='<p role="status" aria-live="polite">${value}</p>',
                    )
                    # Shown while the status line speaks of it.
                    better = gr.Button("Take the better point", size="sm", elem_id="better", min_width=160, scale=0)
            with gr.Column(elem_id="meters", min_width=240):
                gr.HTML("<h2>Rewards</h2>")
                radar = figure(self.radar(None), "radar", "Rewards radar")
                legend = build_legend(self.objectives)
                expected = build_expected()
                gr.HTML(f'<p class="hint">{RADAR_HINT}</p>')
                table = gr.HTML(rewards_table(self.objectives, self.colours, {}), elem_id="rewards")
            drawer, go_on, close = build_drawer()
        gathered = gr.Textbox(visible="hidden", label="Settings")
        mixture = MixtureControls(faders, channels, more.rule, more.gain, more.exponent)
        controls = Controls(
            prompt, mixture, panels.mixtures, panels.open, conversation.turns,
            sampling=more.sampling, stop=more.stop, seed=more.seed, new_seed=more.new_seed, gathered=gathered,
        )  # fmt: skip
        run = gr.Textbox("", visible="hidden", label="Run")
        outputs = Outputs(
            *(run, panels.captions, radar, table, status, drawer, generate, menu.button, stop),
            *(ratings, panels.replies, [conversation.back, conversation.fresh]),
        )  # fmt: skip
        self.connect(controls, outputs, go_on)
        run.change(
            self.unfamiliar,
            [run],
            [unfamiliar],
            queue=False,
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
        )
        Conversation(self.desk, controls, outputs, conversation, lambda: self.cleared(outputs)).connect()
        balancing = Balance(self.desk, controls, outputs, menu, expected, better, legend)
        balancing.connect(tab)
        Steer(self.desk, controls, outputs, balancing).connect(panels.responses, close)
        build_target(self.desk, controls, status)
        connect_history(mixture, undo, redo)
        Keeping(self.desk, controls, status, keeping).connect()
        Sharing(self.desk, controls, status, sharing).connect()
        Restore(controls, outputs).connect()
        return Steering(mixture, status, tabs)

    def radar(self, run: Run | None) -> Any:
        standard = self.desk.engine.reward_set.standard
        done = run.completions if run else {}
        sides = {
            side.title(): radar_chart.SideRewards(done[side].rewards, standard(done[side].rewards))
            for side in SIDES
            if side in done
        }
        return radar_chart.radar(self.objectives, [self.colours[name] for name in self.objectives], sides)

    # --------------------------------------------------------------------------------------------------- the handlers

    def connect(self, controls: Controls, outputs: Outputs, go_on: gr.Button) -> None:
        annotator = gr.BrowserState(None, storage_key="mixdesk-annotator", secret="mixdesk")
        RatingButtons(self.desk, outputs).connect(annotator)
        controls.gather(outputs.generate.click, "mixdesk.rating.begin();").then(
            self.generating(controls, outputs),
            inputs=[controls.gathered],
            outputs=[*outputs.all(), controls.seed],
            concurrency_limit=None,  # the engine has a queue of its own, and says how long it is
            trigger_mode="multiple",  # else Gradio's page drops a click that comes while the last one's answer ends
            show_progress="hidden",
            api_visibility="private",
        )
        controls.gather(go_on.click).then(
            self.branching(controls, outputs),
            inputs=[controls.gathered],
            outputs=[*outputs.all(), controls.panels, *controls.mixtures.values()],
            concurrency_limit=None,
            trigger_mode="multiple",
            show_progress="hidden",
            api_visibility="private",
        )
        outputs.run.change(None, [outputs.run], js="(stage) => mixdesk.text.follow(stage)")
        outputs.stop.click(self.stop, queue=False, api_visibility="private")
        blocks = gr.context.Context.root_block
        assert blocks is not None
        blocks.load(
            None, [annotator], [annotator], js="(known) => { mixdesk.ready(); return known || mixdesk.uuid(); }"
        )
        blocks.unload(self.leave)

    async def unfamiliar(self, stage: str) -> str:
        """Say so where the run's prompt is far from those that the policies know; its first tokens come before."""
        run = self.desk.find(stage.partition(" ")[0])
        if run is None:
            return ""
        async for _ in run.updates():
            if any(run.counts.values()) or run.replaced:
                break
        try:
            warning = await asyncio.to_thread(self.desk.engine.prompt_warning, run.prompt)
        except (InputError, RuntimeError):  # the prompt does not fit, or the engine is closed: the run says so
            return ""
        return message(warning) if warning else ""

    def generating(self, controls: Controls, outputs: Outputs) -> Callable[..., AsyncIterator[Changes]]:
        async def generate(gathered: str, request: gr.Request) -> AsyncIterator[Changes]:
            restarts = self.desk.engine.restarts
            try:
                state = controls.read(gathered)
                seed = self.seed(state)
                # Reading a long prompt takes a while, and the events of all sessions go through this loop.
                run = await asyncio.to_thread(self.start, session(request), state, seed, visitor_of(request).address)
            except InputError as error:
                yield outputs.say(str(error), "bad")
                return
            run.stop_if_unread(UNREAD_FOR)  # its own page reads it at once
            try:
                await run.wait_for_turn()
                if run.replaced:
                    return
                yield {
                    outputs.run: run.stage,
                    **dict.fromkeys(outputs.captions.values(), ""),
                    **outputs.buttons(running=True, rateable=False),
                    **outputs.say("Generating…"),
                    outputs.drawer: None,
                    controls.seed: str(seed),
                }
                async for changes in self.following(run, list(run.responses), outputs, restarts):
                    yield changes
            finally:
                run.left.set()

        return generate

    def branching(self, controls: Controls, outputs: Outputs) -> Callable[..., AsyncIterator[Changes]]:
        async def branch(gathered: str, request: gr.Request) -> AsyncIterator[Changes]:
            restarts = self.desk.engine.restarts
            try:
                state = controls.read(gathered)
                side = next((side for side in SIDES if side not in state.panels), SIDES[-1])
                mixture = chosen_mixture(FADERS, state.mixture, self.desk.engine)
                sampling, seed = state.tokens_sampling(), self.seed(state) + SIDES.index(side)
                run = await asyncio.to_thread(
                    self.desk.branch, session(request), side, mixture, sampling, seed, visitor_of(request).address
                )
            except InputError as error:
                yield outputs.say(str(error), "bad")
                return
            yield {
                controls.panels: ",".join(one for one in SIDES if one in (*state.panels, side)),
                controls.mixtures[side]: FADERS,
                outputs.run: run.stage,
                outputs.captions[side]: "",
                **outputs.buttons(running=True, rateable=False),
                **outputs.say("Continuing from there…"),
            }
            async for changes in self.following(run, [side], outputs, restarts):
                yield changes

        return branch

    async def following(self, run: Run, sides: list[str], outputs: Outputs, restarts: int) -> AsyncIterator[Changes]:
        """What is shown around the text of these panels, until they are finished. restarts: the engine's when they
        were asked for."""
        began = time.perf_counter()
        mine = [run.responses[side] for side in sides]
        shown, waited = 0, False
        idle = outputs.buttons(running=False, rateable=False)
        try:
            async for _ in run.updates(0.1, sides):
                if run.replaced:
                    return
                changes: Changes = {}
                if (ahead := run.ahead) is not None:
                    place = f"{ahead} ahead of you" if ahead else "you are next"
                    changes |= outputs.say(f"Waiting in the queue: {place}.")
                    waited = True
                elif waited:
                    changes |= outputs.say("Generating…")
                    waited = False
                if len(run.completions) > shown:
                    shown = len(run.completions)
                    changes |= self.results(run, outputs)
                if changes:
                    yield changes
            if error := next((response.error for response in mine if response.error is not None), None):
                raise error
        except InputError as error:
            yield {**idle, **outputs.say(str(error), "bad")}
            return
        except Exception:
            log.exception("the engine failed")
            failed = "The engine failed at these responses; its log says why. Press Generate to try again."
            if self.desk.engine.restarts > restarts:
                failed = "The engine had to restart, and is ready now. Press Generate to try again."
            yield {**idle, **outputs.say(failed, "bad")}
            return
        if run.done and run.rateable and run.choice is None:
            await asyncio.to_thread(self.desk.keep_unrated, run)
        yield {
            **(self.results(run, outputs) if len(run.completions) > shown else {}),
            **outputs.buttons(not run.done, run.done and run.rateable and run.choice is None, run.answered),
            **outputs.say(summary(run, sides, time.perf_counter() - began)),
        }

    def results(self, run: Run, outputs: Outputs) -> Changes:
        made = run.completions
        captions = {outputs.captions[side]: caption(completion) for side, completion in made.items()}
        columns = [side for side in SIDES if side in run.responses]
        table = rewards_table(self.objectives, self.colours, made, columns)
        return {**captions, outputs.radar: plotted(self.radar(run)), outputs.table: table}

    def cleared(self, outputs: Outputs) -> Changes:
        return {
            outputs.run: "",
            **dict.fromkeys(outputs.captions.values(), ""),
            **outputs.buttons(running=False, rateable=False),
            outputs.radar: plotted(self.radar(None)),
            outputs.table: rewards_table(self.objectives, self.colours, {}),
            outputs.drawer: None,
        }

    def start(self, who: str, state: DeskState, seed: int, address: str = "") -> Run:
        """Submit the responses of the open panels. Raises InputError."""
        sampling, engine = state.tokens_sampling(), self.desk.engine
        return self.desk.start(
            who,
            state.question(),
            {side: chosen_mixture(choice, state.mixture, engine) for side, choice in state.panels.items()},
            {side: chosen_sampling(choice, sampling) for side, choice in state.panels.items()},
            seed,
            steerable=[side for side, choice in state.panels.items() if choice == FADERS],
            address=address,
        )

    def seed(self, state: DeskState) -> int:
        """Return the first panel's seed. Raises InputError if what is typed is none."""
        return new_seed() if state.new_seed else whole_number(state.seed)

    def stop(self, request: gr.Request) -> None:
        self.desk.stop(session(request))

    async def leave(self, request: gr.Request) -> None:
        """Stop what is under way for a page that is closed; keep its responses for a rating that comes late."""
        who = session(request)
        self.desk.stop(who)
        if run := self.desk.runs.get(who):
            asyncio.get_running_loop().call_later(RATEABLE_FOR, self.drop, who, run)

    def drop(self, who: str, run: Run) -> None:
        """Forget a session's run, unless it has another by now."""
        if self.desk.runs.get(who) is run:
            self.desk.forget(who)


def build_desk_tab(desk: Desk, tab: gr.Tab, tabs: gr.Tabs) -> Steering:
    """Build the tab Desk; return what other tabs steer it with."""
    return DeskTab(desk).build(tab, tabs)


def summary(run: Run, sides: list[str], seconds: float) -> str:
    """Return the status line of a finished run: tokens, seconds, and what can be rated."""
    made = [completion for side, completion in run.completions.items() if side in sides]
    tokens = sum(len(completion.tokens) - completion.prefix_length for completion in made)
    how = "Stopped" if any(completion.finish_reason == FinishReason.STOPPED for completion in made) else "Done"
    rest = "Which is better?" if len(run.responses) == 2 else "Which is better, left or right?"
    if run.choice is not None:
        rest = ""
    elif not run.rateable:
        rest = "A response is empty: generate again to rate."
    return f"{how}: {tokens} tokens in {seconds:.1f} s. {rest}"
