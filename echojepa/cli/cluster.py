"""`echojepa drain-node` and `echojepa watch-termination`: nodes that will be taken away."""

from __future__ import annotations

from typing import Annotated

import typer

from echojepa.cli.common import Address, out

app = typer.Typer()

NodeId = Annotated[str | None, typer.Option(help="Ray node; default: this machine's.")]


@app.command("drain-node")
def drain_node(
    seconds: Annotated[
        float, typer.Argument(help="Until the node is taken away; at least 15.", min=15)
    ],
    address: Address = None,
    node_id: NodeId = None,
) -> None:
    """Tell a Ray cluster that one of its nodes will go: what trains there saves in time."""
    import time

    from echojepa.on_ray.termination import Notice, drain

    drain(Notice("echojepa drain-node", time.time() + seconds), address, node_id)


@app.command("watch-termination")
def watch_termination(
    address: Address = None,
    node_id: NodeId = None,
    metadata: Annotated[
        str, typer.Option(help="Metadata service of the cloud.")
    ] = "http://169.254.169.254",
    poll_seconds: Annotated[float, typer.Option(help="How often to ask it.", min=0.1)] = 5.0,
) -> None:
    """Run beside Ray on a spot node: drains the node when the cloud says that it will end it."""
    import time

    from echojepa.on_ray.termination import Metadata, watch

    notice = watch(Metadata(metadata), address, node_id, poll_seconds)
    out.print(f"drained: {notice.reason}, {notice.ends_at - time.time():.0f} s left")
