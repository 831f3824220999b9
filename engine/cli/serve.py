"""The command `python -m engine serve`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.options import JsonOption, app
from engine.cli.runner import print_json
from engine.config import DEMO
from engine.names import slug_of
from engine.scale.options import Replicas

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from engine.api.keys import ApiKeys
    from engine.inference.engine import Engine

RESERVED = ("v1", "engine", "healthz", "readyz", "metrics", "tokenize", "detokenize", "tokenizer-info")  # addresses


@app.command("serve")
def serve_command(
    config: Annotated[
        list[Path] | None,
        typer.Option(help="YAML configuration, the bundled policies by default; several serve several, the first at /"),
    ] = None,
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="the port; 0 takes a free one")] = 8000,
    api_key: Annotated[
        str,
        typer.Option(
            envvar="MIXDESK_API_KEYS",
            help="keys with commas between, one of which each request must have; without, only this machine is served",
        ),
    ] = "",
    replicas: Annotated[
        str, typer.Option(help="replicas of the engine on a Ray cluster: a number, or least and most, 1-4")
    ] = "",
    cpus: Annotated[float, typer.Option(help="CPUs of each replica")] = 1,
    gpus: Annotated[float, typer.Option(help="GPUs of each replica")] = 0,
    ray_address: Annotated[
        str, typer.Option(help="the address of a running Ray cluster; without, one is started on this machine")
    ] = "",
    loaded: Annotated[int, typer.Option(min=0, help="configurations that a replica holds at once; 0 is all")] = 0,
    json: JsonOption = False,
) -> None:
    """Serve the policies and their mixtures: to OpenAI clients at /v1, and to desks on other machines."""
    configs = config or [DEMO]
    from engine.api.api_server import LATEST, LATEST_OF_REPLICAS, ApiServer
    from engine.api.keys import ApiKeys
    from engine.listening import bind_address

    keys = ApiKeys.read(api_key)
    bound = bind_address(host, port, listen=False)
    from engine.api.health import health_routes
    from engine.api.metrics import metrics_routes
    from engine.api.routes import api_routes
    from engine.api.source import FixedEngines

    report = partial(typer.echo, err=True)
    with ExitStack() as opened:
        if replicas:
            chosen = Replicas.read(replicas, cpus, gpus, ray_address, loaded)
            from engine.scale.cluster import Cluster
            from engine.scale.engine import ScaledEngine

            cluster = opened.enter_context(Cluster(configs, chosen, report))
            engines = open_engines(configs, lambda config: ScaledEngine(cluster, config, report), opened)
        else:
            from engine.inference.engine import Engine

            engines = open_engines(configs, Engine.from_config, opened)
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{bound.getsockname()[1]}"
        bound.listen()  # first: who reads the line may connect at once
        if json:
            print_json({"url": f"{url}/v1", "engines": {name: f"{url}/{name}" for name in engines}})
        else:
            typer.echo(f"Mixdesk's engine is at {url}/v1 (Ctrl+C ends it)")
            for name in list(engines) if len(engines) > 1 else []:
                typer.echo(f"  {url}/{name}")
        if not keys.keys and host not in ("127.0.0.1", "localhost", "::1"):
            report("Only programs on this machine are served: MIXDESK_API_KEYS gives keys to others.")
        source = FixedEngines(engines)
        routes = [*api_routes(source, keys), *health_routes(source), *metrics_routes(source, keys)]
        latest = LATEST_OF_REPLICAS if replicas else LATEST
        closing = threading.Lock()

        def close() -> None:
            with closing:  # the server calls it on a signal; the process ends once it has returned
                opened.close()

        ApiServer([*routes, *engine_routes(engines, keys)], close, latest).run(sockets=[bound])
        close()


def open_engines(configs: Sequence[Path], open_one: Callable[[Path], Engine], opened: ExitStack) -> dict[str, Engine]:
    """Return {name: engine} of configurations, which are open until the stack is closed. Raises InputError."""
    engines: dict[str, Engine] = {}
    for config in configs:
        engine = opened.enter_context(open_one(config))
        engines[slug_of(engine.config.name, {*engines, *RESERVED})] = engine
    return engines


def engine_routes(engines: Mapping[str, Engine], keys: ApiKeys) -> list[BaseRoute]:
    """Return the routes for desks: of the first engine at the root, and of each under its name."""
    from starlette.routing import Mount

    from engine.remote.routes import EngineRoutes

    routes: list[BaseRoute] = []
    for name, engine in engines.items():
        own = EngineRoutes(engine, keys.refusal).routes()
        routes += [*(own if not routes else []), Mount(f"/{name}", routes=own)]
    return routes
