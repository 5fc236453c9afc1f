"""A page in the browser: a prompt, strengths and seeds on one side, the base and the adapted pipeline on the other.

It is served to this machine alone, and asks nothing of any other.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

from visionpeft.errors import OptionError, UserError
from visionpeft.predict.comparison import Comparison, Wish
from visionpeft.predict.sampler import Sampler
from visionpeft.predict.warned import warned

if TYPE_CHECKING:
    from gradio import Blocks

HOST = "127.0.0.1"
_LARGEST_SEED = 2**31 - 1
_MOST_PICTURES = 4
_EXAMPLES = 6
_WARNED = 20  # seconds that a warning is shown
_CSS = ".gradio-container {width: 100% !important; max-width: 1280px !important; margin: auto}"
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from the net


def serve(sampler: Sampler, port: int | None = None, *, wait: bool = True) -> str:
    """Serve the page at this machine, and return its address.

    Args:
        sampler: with its adapters.
        port: default: the first free one from 7860 on.
        wait: until it is interrupted.

    Raises:
        OptionError: gradio is not installed.
        UserError: the port is taken.
    """
    gradio = _gradio()
    built = page(sampler)
    look = {"theme": gradio.themes.Default(**_FONTS), "css": _CSS, "footer_links": []}
    try:
        _, address, _ = built.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            ssr_mode=False,
            prevent_thread_lock=True,
            **look,
        )
    except OSError as error:
        raise UserError(f"the page cannot be served at port {port or 7860}: {error}. Choose another --port") from error
    if wait:
        print(f"{address} (Ctrl+C ends it)", flush=True)
        built.block_thread()
    return address


def page(sampler: Sampler) -> Blocks:
    """The page, not served yet."""
    gradio, comparison = _gradio(), Comparison(sampler)
    chosen, names = sampler.settings(None, None, None), list(sampler.adapters)
    with gradio.Blocks(title=f"visionpeft: {sampler.opened.source}", analytics_enabled=False) as built:
        gradio.Markdown(_heading(sampler))
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                prompt = _prompt(gradio, sampler)
                strengths = [_strength(gradio, name, sampler.strengths.get(name, 0.0)) for name in names]
                with gradio.Row():
                    seed = gradio.Number(0, label="seed", precision=0, minimum=0, maximum=_LARGEST_SEED)
                    count = gradio.Slider(1, _MOST_PICTURES, 1, step=1, label="pictures")
                another = gradio.Button("another seed", size="sm")
                with gradio.Accordion("more", open=False):
                    steps = gradio.Slider(1, 100, chosen["steps"], step=1, label="steps")
                    guidance = gradio.Slider(0, 15, chosen["guidance"], step=0.1, label="guidance")
                    takes = sampler.family.conditioned_by == "text"
                    negative = gradio.Textbox(label="negative prompt", visible=takes)
                draw = gradio.Button("draw", variant="primary")
            with gradio.Column(scale=3, min_width=320), gradio.Row():
                base, adapted = (_gallery(gradio, label) for label in ("base", "with adapters"))
        inputs = [prompt, seed, count, steps, guidance, negative, *strengths]
        asked = {"inputs": inputs, "outputs": [base, adapted], "concurrency_limit": 1, "concurrency_id": "draw"}
        answer = _answering(gradio, comparison, names)
        draw.click(answer, api_name="draw", **asked)
        another.click(lambda: random.randrange(_LARGEST_SEED), outputs=seed, api_name="seed").then(
            answer, api_name=False, **asked
        )
    return built


def _answering(gradio: Any, comparison: Comparison, names: list[str]) -> Any:
    """The function behind the button."""

    def answer(
        prompt: str | None,
        seed: int,
        count: int,
        steps: int,
        guidance: float,
        negative: str,
        *strengths: float,
        progress: Any = gradio.Progress(),  # noqa: B008 - how gradio is told that there is progress to show
    ) -> tuple[list[Any], list[Any]]:
        wish = Wish(prompt or "", int(seed), int(count), int(steps), guidance, negative)
        with warned(lambda message: gradio.Warning(message, duration=_WARNED)):
            try:
                drawn = comparison.draw(
                    wish, dict(zip(names, strengths, strict=True)), lambda done, steps: progress((done, steps))
                )
            except UserError as error:
                raise gradio.Error(str(error), print_exception=False) from error
        base, adapted = ([picture.permute(1, 2, 0).numpy() for picture in pictures] for pictures in drawn)
        return base, adapted

    return answer


def _heading(sampler: Sampler) -> str:
    kind = type(sampler.opened.pipeline.pipe).__name__
    there = ", ".join(sampler.adapters) or "none; give --adapter to compare with one"
    return f"## {sampler.opened.source}\n{kind} · adapters: {there}"


def _prompt(gradio: Any, sampler: Sampler) -> Any:
    """A line for a text, a list of classes, or nothing to fill in."""
    by, pipe = sampler.family.conditioned_by, sampler.opened.pipeline.pipe
    captions = list(sampler.opened.captions[:_EXAMPLES])
    if by == "class":
        classes = sorted(pipe.labels)
        return gradio.Dropdown(classes, value=classes[0], label="class", filterable=True)
    prompt = gradio.Textbox(captions[0] if captions else "", label="prompt", lines=2, visible=by == "text")
    if captions and by == "text":
        gradio.Examples([[caption] for caption in captions], prompt, label="captions that the run was tested with")
    return prompt


def _strength(gradio: Any, name: str, value: float) -> Any:
    return gradio.Slider(min(-1.0, value), max(2.0, value), value, step=0.05, label=f"strength of {name}")


def _gallery(gradio: Any, label: str) -> Any:
    return gradio.Gallery(label=label, columns=1, height="auto", object_fit="contain", format="png", interactive=False)


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        import gradio
    except ImportError as error:
        raise OptionError(f"the page needs gradio: pip install 'visionpeft[demo]' ({error})") from error
    return gradio
