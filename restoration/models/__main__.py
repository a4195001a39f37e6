"""Prints a table of the models: `python -m restoration.models`."""

from restoration import models


def main() -> None:
    """Prints one line a model, as a Markdown table."""
    print("| model | layers | parameters | multiply-adds/pixel | field | source |")
    print("|---|--:|--:|--:|--:|---|")
    for name in models.MODELS:
        model = models.get_model(name)
        parameters = models.abstract_parameters(model)
        field, _ = models.receptive_field(model)
        print(
            f"| `{name}` | {model.layers} "
            f"| {models.count_parameters(parameters):,} "
            f"| {models.multiply_adds(model):,.0f} | {field}×{field} "
            f"| {model.source} |"
        )


if __name__ == "__main__":
    main()
