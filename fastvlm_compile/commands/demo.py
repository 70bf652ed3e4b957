"""`demo`: ask a bundle in a browser."""

from pathlib import Path

import click


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Of 127.0.0.1; 0 for any that is free.",
)
@click.option(
    "--assets",
    type=click.Path(path_type=Path),
    help="A node_modules folder with @huggingface/transformers.  [default: that of "
    "`make consumers-env`]",
)
@click.option(
    "--variant",
    default="",
    help="fp32, fp16, int8 (q8) or int4 (q4).  [default: that of the fewest bits]",
)
def demo(*, bundle: Path, port: int, assets: Path | None, variant: str) -> None:
    """Serve a page that answers questions about images with BUNDLE, inside the browser.

    Nothing comes from the network and nothing leaves this machine. Ends with Ctrl-C.
    """
    from fastvlm_compile.demo.server import DemoServer
    from fastvlm_compile.demo.site import make_site

    site = make_site(bundle, variant=variant, assets=assets)
    with DemoServer(site, port=port) as server:
        click.echo(server.url)
        click.echo(f"{bundle}, {site.variant}; Ctrl-C ends it", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("ended", err=True)
