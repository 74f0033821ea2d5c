"""Read Office-31 in its official layout: 31 things of an office in three domains.

::

    root/amazon/images/back_pack/frame_0001.jpg      2,817 photos of a shop
    root/dslr/images/back_pack/frame_0001.jpg        498 photos of a single-lens reflex camera
    root/webcam/images/back_pack/frame_0001.jpg      795 photos of a webcam

Some copies have the classes in ``root/amazon``, without a folder ``images``. One domain is read, so that a model that
learns from one can be tested on another.

Source: Saenko, Kulis, Fritz and Darrell, Adapting visual category models to new domains (ECCV 2010).
"""

from pathlib import Path

from mixtura.datasets.folder import Scan
from mixtura.datasets.items import Dataset
from mixtura.datasets.paths import readable
from mixtura.datasets.published import require_count
from mixtura.datasets.walk import PHOTO_FILES
from mixtura.errors import NoInput, UsageError
from mixtura.files import cache_folder, is_folder_at
from mixtura.names import nearest

PUBLISHED = {"amazon": 2817, "dslr": 498, "webcam": 795}
"""Photos of each domain."""

CLASSES = 31
IMAGE_FOLDER = "images"


def load(
    root: Path | None = None, *, label: str = "fine", domain: str | None = None, follow_links: bool = False
) -> Dataset:
    """Office-31: 2,817, 498 or 795 photos of 31 classes, from a shop, a camera or a webcam (data.domain names one).

    Args:
        root: the folder with ``amazon``, ``dslr`` and ``webcam``; the cache folder by default.
        label: ``fine``; there is no other.
        domain: which of the three to read.
        follow_links: also follow links that lead out of the folder.

    Raises:
        UsageError: no domain is named, or another one.
        NoInput: the folder of the domain is missing.
        DataError: photos of it are missing.
    """
    if domain is None:
        raise UsageError(
            f"Office-31 has the domains {', '.join(PUBLISHED)}. Give the folder of one, as in "
            f"{readable(str((root or Path('office31')) / 'amazon'))}, or name it in a recipe: data.domain: amazon."
        )
    if domain not in PUBLISHED:
        raise UsageError(f"Office-31 has no domain {domain!r}. {nearest(domain, PUBLISHED)}")
    start = root if root is not None else cache_folder("office31")
    inside = f"{domain}/{IMAGE_FOLDER}" if is_folder_at(start / domain / IMAGE_FOLDER) else domain
    folder = start / inside
    advice = "Unpack the official archive of Office-31 (domain_adaptation_images.tar.gz) again."
    if not is_folder_at(folder):
        raise NoInput(
            f"{readable(str(start))}: holds no folder {domain}, the domain {domain!r} of Office-31. Give the folder "
            "that holds it."
        )
    scan = Scan(start.resolve(), PHOTO_FILES, follow_links)
    scan.part(scan.root / inside, None)
    items = tuple(item for item in scan.items if item.label is not None)
    require_count(folder, "classes", len({item.label for item in items}), CLASSES, advice)
    require_count(folder, "photos", len(items), PUBLISHED[domain], advice)
    return Dataset(f"office31 {domain}", items, scan.problems).at_level(label)
