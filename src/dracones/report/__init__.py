"""Figures, tables, heat maps and the one-file HTML report, from plain arrays."""

from typing import TYPE_CHECKING

from dracones.lazy import lazily

if TYPE_CHECKING:
    from dracones.report.builder import Report as Report
    from dracones.report.evidence import evidence_curves as evidence_curves
    from dracones.report.figures import p_value_histogram as p_value_histogram
    from dracones.report.figures import pr_curves as pr_curves
    from dracones.report.figures import rate_curves as rate_curves
    from dracones.report.figures import roc_curves as roc_curves
    from dracones.report.figures import scatter as scatter
    from dracones.report.figures import score_histogram as score_histogram
    from dracones.report.figures import training_curve as training_curve
    from dracones.report.images import image_picture as image_picture
    from dracones.report.images import map_picture as map_picture
    from dracones.report.images import overlay as overlay
    from dracones.report.maps import write_maps as write_maps
    from dracones.report.maps import write_mask as write_mask
    from dracones.report.picture import Picture as Picture
    from dracones.report.reading import read_table as read_table
    from dracones.report.sections import Section as Section
    from dracones.report.sections import Tile as Tile
    from dracones.report.tables import table_kind as table_kind
    from dracones.report.tables import write_rows as write_rows
    from dracones.report.tables import write_table as write_table

__all__ = [
    "Picture",
    "Report",
    "Section",
    "Tile",
    "evidence_curves",
    "image_picture",
    "map_picture",
    "overlay",
    "p_value_histogram",
    "pr_curves",
    "rate_curves",
    "read_table",
    "roc_curves",
    "scatter",
    "score_histogram",
    "table_kind",
    "training_curve",
    "write_maps",
    "write_mask",
    "write_rows",
    "write_table",
]

_HOMES = {
    "Picture": "picture",
    "Report": "builder",
    "Section": "sections",
    "Tile": "sections",
    "evidence_curves": "evidence",
    "image_picture": "images",
    "map_picture": "images",
    "overlay": "images",
    "p_value_histogram": "figures",
    "pr_curves": "figures",
    "read_table": "reading",
    "rate_curves": "figures",
    "roc_curves": "figures",
    "scatter": "figures",
    "score_histogram": "figures",
    "table_kind": "tables",
    "training_curve": "figures",
    "write_maps": "maps",
    "write_mask": "maps",
    "write_rows": "tables",
    "write_table": "tables",
}
# A table needs no matplotlib and no template.
__getattr__ = lazily(__name__, _HOMES)
