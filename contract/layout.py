"""The name of every file in a prepared dataset."""

from dataclasses import dataclass

from common.storage.paths import join, shard_name
from contract.schema import Split, Vocabulary


@dataclass(frozen=True)
class DatasetLayout:
    """Paths of the files of a prepared dataset."""

    root: str

    @property
    def manifest(self) -> str:
        return join(self.root, "manifest.json")

    @property
    def statistics(self) -> str:
        return join(self.root, "statistics.json")

    @property
    def expectations(self) -> str:
        """Path of the statistics to compare with those of later datasets of the same shop."""
        return join(self.root, "expectations.json")

    @property
    def comparison(self) -> str:
        """Path of the comparison with an earlier dataset. The manifest does not list this file."""
        return join(self.root, "comparison.json")

    @property
    def report(self) -> str:
        """Path of the page that shows the statistics as charts. The manifest does not list this file."""
        return join(self.root, "report.html")

    @property
    def data_page(self) -> str:
        """Path of the report's Data page as HTML. The manifest does not list this file."""
        return join(self.root, "data_page.html")

    @property
    def transform(self) -> str:
        """Directory of the TF-Transform SavedModel."""
        return join(self.root, "transform")

    @property
    def rejects(self) -> str:
        return join(self.root, "rejects")

    @property
    def catalogue(self) -> str:
        return join(self.root, "catalogue")

    @property
    def timelines(self) -> str:
        return join(self.root, "timelines")

    def vocabulary(self, name: Vocabulary) -> str:
        return join(self.root, "vocabulary", f"{name}.txt")

    def timeline_shard(self, split: Split, index: int, count: int, *, compressed: bool) -> str:
        suffix = ".tfrecord.gz" if compressed else ".tfrecord"
        return join(self.timelines, shard_name(split, index, count, suffix))

    def catalogue_shard(self, index: int, count: int) -> str:
        return join(self.catalogue, shard_name("items", index, count, ".parquet"))
