"""The packages that ship and what each job requires; Beam workers install from it too."""

from pathlib import Path

from setuptools import setup

VERSION = "0.1.0"

# What both jobs import: the contract's codec, Parquet catalogue and storage.
CONTRACT = ["tensorflow>=2.16.2,<2.22", "numpy>=1.26,<2.5", "pyarrow>=18,<26", "fsspec>=2025"]
PREPROCESSING = ["apache-beam[gcp]>=2.77,<3", "tensorflow-transform>=1.21,<1.22", "pandas>=2.2"]
TRAINER = ["keras>=3.15,<4", "scipy>=1.15", "tensorboard>=2.16,<2.22", "tqdm>=4.66"]
# pip would otherwise settle for s3fs 0.4.2
STORAGE = ["s3fs>=2025", "gcsfs>=2025"]
# s3:// through TensorFlow itself; its last release registers nothing in any TensorFlow but the one it was built for,
# which knows NumPy 1 alone
TENSORFLOW_IO = ["tensorflow-io==0.37.1", "tensorflow==2.16.2", "numpy<2", "pyarrow<25"]
# moto[server] would bring 28 packages more, for services that are not tried here
TEST = ["flask", "flask-cors", "gcp-storage-emulator", "hypothesis", "moto[s3]>=5.2", "pytest"]
DEV = [
    "build",
    "import-linter",
    "kagglehub",
    "mypy",
    "pandas-stubs",
    "ruff",
    "setuptools",
    "types-protobuf",
    "types-tqdm",
    "wheel",
]

setup(
    name="cartwheel",
    version=VERSION,
    description="Product recommenders from an event log: Beam preprocessing, tf.distribute training, SavedModel export",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=[
        "contract",
        "contract.storage",
        "preprocessing",
        "preprocessing.synthetic",
        "trainer",
        "trainer.models",
        "trainer.ranking",
    ],
    package_data={"contract": ["py.typed"], "preprocessing": ["py.typed"], "trainer": ["py.typed"]},
    install_requires=CONTRACT,
    extras_require={
        "preprocessing": PREPROCESSING,
        "trainer": TRAINER,
        "storage": STORAGE,
        "tensorflow-io": TENSORFLOW_IO,
        "test": TEST,
        "dev": PREPROCESSING + TRAINER + STORAGE + TEST + DEV,
    },
)
