"""A p-value for people who do not read p-values."""


def p_value_in_words(p_value: float | None, calibrated_on: int) -> str:
    """How many of the calibration images look at least this unusual: what a conformal p-value counts.

    Args:
        p_value: ``(1 + count at least as high) / (n + 1)``.
        calibrated_on: ``n``.

    Example:
        >>> p_value_in_words(0.25, 99)
        '24 of the 99 good images it was calibrated on look at least this unusual.'
        >>> p_value_in_words(0.01, 99)
        'None of the 99 good images it was calibrated on looks this unusual.'
        >>> p_value_in_words(None, 0)
        'The model is not calibrated, so nobody knows how unusual this is.'
    """
    if p_value is None or calibrated_on == 0:
        return "The model is not calibrated, so nobody knows how unusual this is."
    of = f"of the {calibrated_on} good images it was calibrated on"
    count = round(p_value * (calibrated_on + 1)) - 1
    if count <= 0:
        return f"None {of} looks this unusual."
    if count >= calibrated_on:
        return f"All {of} look at least this unusual."
    return f"{count} {of} {'looks' if count == 1 else 'look'} at least this unusual."
