"""The command `python -m engine serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.options import ConfigOption, JsonOption, app
from engine.cli.runner import print_json
from engine.config import DEMO


@app.command("serve")
def serve_command(
    config: ConfigOption = DEMO,
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
    json: JsonOption = False,
) -> None:
    """Serve the policies and their mixtures: to OpenAI clients at /v1, and to desks on other machines."""
    from engine.api.api_server import LATEST, LATEST_OF_REPLICAS, ApiServer
    from engine.api.keys import ApiKeys
    from engine.listening import bind_address

    keys = ApiKeys.read(api_key)
    bound = bind_address(host, port, listen=False)
    from engine.api.health import health_routes
    from engine.api.metrics import metrics_routes
    from engine.api.routes import api_routes
    from engine.api.source import OneEngine
    from engine.inference.engine import Engine
    from engine.remote.routes import EngineRoutes
    from engine.scale.options import Replicas

    engine: Engine
    if replicas:
        chosen = Replicas.read(replicas, cpus, gpus, ray_address)
        from engine.scale.engine import ScaledEngine

        engine = ScaledEngine(config, chosen, lambda line: typer.echo(line, err=True))
    else:
        engine = Engine.from_config(config)
    source = OneEngine(engine)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{bound.getsockname()[1]}/v1"
    bound.listen()  # first: who reads the line may connect at once
    if json:
        print_json({"url": url})
    else:
        typer.echo(f"Mixdesk's engine is at {url} (Ctrl+C ends it)")
    if not keys.keys and host not in ("127.0.0.1", "localhost", "::1"):
        typer.echo("Only programs on this machine are served: MIXDESK_API_KEYS gives keys to others.", err=True)
    routes = [*api_routes(source, keys), *health_routes(source), *metrics_routes(source, keys)]
    routes += EngineRoutes(engine, keys.refusal).routes()
    latest = LATEST_OF_REPLICAS if replicas else LATEST
    ApiServer(routes, engine.close, latest).run(sockets=[bound])
    engine.close()
