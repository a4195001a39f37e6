"""Prints a table of the models: `python -m restoration.models`."""

from restoration import models


def table() -> str:
    """Returns a row for each model, as a Markdown table."""
    rows = [
        "| model | layers | parameters | multiply-adds/pixel | field | source |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name in models.MODELS:
        model = models.get_model(name)
        parameters = models.abstract_parameters(model)
        field, _ = models.receptive_field(model)
        rows.append(
            f"| `{name}` | {model.layers} "
            f"| {models.count_parameters(parameters):,} "
            f"| {models.multiply_adds(model):,.0f} | {field}×{field} "
            f"| {model.source} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Prints the table."""
    print(table())


if __name__ == "__main__":
    main()
