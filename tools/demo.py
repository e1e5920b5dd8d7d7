#!/usr/bin/env python
"""A web page to try the systems on videos: python tools/demo.py, and open the address that it prints (docs/demo.md)."""

import argparse
import logging
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg import distributed
from mmseg.apis import cli
from mmseg.apis.demo.choices import Choices
from mmseg.apis.demo.requests import LOOPBACK
from mmseg.apis.demo.server import DemoServer, DemoSettings
from mmseg.errors import ConfigError
from mmseg.values import PositiveFloat, PositiveInt

CONFIGS = Path(__file__).resolve().parent.parent / "local_configs"
CHECKPOINTS = ("work_dirs", "checkpoints", "checkpoint")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A web page to try the systems on videos")
    parser.add_argument("--configs", nargs="+", type=Path, default=[CONFIGS], help="config files and folders of them")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        type=Path,
        help=f"checkpoints and folders of them (default: {', '.join(CHECKPOINTS)} where they exist)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one (default: 7860)")
    parser.add_argument(
        "--max-upload", type=cli.number(PositiveFloat), default=500, metavar="MB", help="of a video (default: 500)"
    )
    parser.add_argument("--max-frames", type=cli.number(PositiveInt), help="of a video (default: all)")
    cli.add_device(parser)
    return parser.parse_args()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    args = parse_args()
    checkpoints = args.checkpoints or [Path(name) for name in CHECKPOINTS if Path(name).exists()]
    for path in [*args.configs, *checkpoints]:
        if not path.exists():
            raise ConfigError(f"{path} does not exist", "a file or a folder", "check the path")
    settings = DemoSettings(
        host=args.host,
        port=args.port,
        device=distributed.init(**cli.placement(args.device)),
        max_upload=int(args.max_upload * 1e6),
        max_frames=args.max_frames,
    )
    if args.host not in LOOPBACK:
        logging.warning("--host %s: whoever reaches this machine can use the page, without a password", args.host)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # a closed terminal ends it as Ctrl-C does
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    with DemoServer(Choices(args.configs, checkpoints), settings) as server:
        cli.say(f"open {server.address} in a browser; Ctrl-C ends the demo")
        sys.stdout.flush()
        server.serve_forever(poll_interval=0.2)


if __name__ == "__main__":
    cli.run(main)
