"""The head of recipes that are built in seconds: a checkpoint beside the recipe, few goldens."""


def small_recipe(rest: str, *, name: str = "small", photographs: int = 0) -> str:
    """A recipe in YAML; `rest` has its targets and gates."""
    return f"""\
schema: 1
name: {name}
checkpoint: {{path: checkpoint}}
image: {{size: 128, fit: pad, position: before}}
context_length: 128
goldens:
  scenes: 1
  photographs: {photographs}
  prompts: [Describe it.]
  max_new_tokens: 3
  task_questions: 0
{rest}"""
