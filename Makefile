# Two commands: `make book` and `make test`. `make help` lists the others.

PROFILE ?= quick
# Chapters execute inside book/, where a relative path leads elsewhere.
ifneq ($(filter %.yaml %.yml,$(PROFILE)),)
  override PROFILE := $(abspath $(PROFILE))
endif
export SRGAN_PROFILE := $(PROFILE)

ifdef SRGAN_DATA
  ifeq ($(filter /% ~%,$(SRGAN_DATA)),)
    override SRGAN_DATA := $(CURDIR)/$(SRGAN_DATA)
  endif
  override SRGAN_DATA := $(patsubst ~/%,$(HOME)/%,$(SRGAN_DATA))
  export SRGAN_DATA
endif

# The notebooks' kernel is this environment's, whatever else is installed.
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# pip need not compile what may never be imported: Python does it, once, at
# the first import, where nothing forbids it.
unexport PYTHONDONTWRITEBYTECODE

# PYTHON=... with torch in it is used as it is, plus what is missing.
# Otherwise .venv is made, with the pinned packages of requirements.txt.
empty :=
ifdef PYTHON
  OWN := $(shell "$(PYTHON)" -c 'import importlib.util as u, sys; \
    print(sys.executable if u.find_spec("torch") else "")' 2>/dev/null)
endif
PYTHON ?= python3
ifdef OWN
  RUN := "$(OWN)"
  READY := _build/.ready$(subst $(empty) $(empty),_,$(subst /,-,$(OWN)))
else
  RUN := .venv/bin/python
  READY := .venv/ready
  # A project that was moved, or a Python that is gone: make .venv again.
  $(shell test "$$(cat .venv/ready 2>/dev/null)" = "$(CURDIR)" \
    && .venv/bin/python -c "" 2>/dev/null || rm -f .venv/ready)
endif
WHEEL := _build/html/notebooks/.wheel
JUPYTER_BOOK := $(RUN) -c 'from jupyter_book.cli.main import main; main()'

.PHONY: help book pdf experiments faults bench test test-slow lint format \
  data clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' \
	  Makefile
	@echo "make book CHAPTER=name   only one page, for its author"
	@echo
	@echo "PROFILE=$(PROFILE)  SRGAN_DATA=$(SRGAN_DATA)  PYTHON=$(PYTHON)"

ifdef CHAPTER
# Only one page, for its author. What it says of other pages stays unresolved.
book: $(READY)
	@test -e "book/$(CHAPTER).md" || { echo "There is no chapter $(CHAPTER);\
	 CHAPTER is one of: $(basename $(notdir $(wildcard book/*.md)))"; exit 1; }
	$(RUN) -m srgan_lib experiments --for-book --profile $(PROFILE)
	@mkdir -p _build/chapter
	@printf 'format: jb-book\nroot: book/%s\nchapters:\n- file: %s\n' \
	  $(CHAPTER) book/references > _build/chapter/_toc.yml
	$(JUPYTER_BOOK) build . --toc _build/chapter/_toc.yml \
	  --path-output _build/chapter -q
	@echo "Open $(CURDIR)/_build/chapter/_build/html/book/$(CHAPTER).html"
else
book: $(READY) $(WHEEL)  ## train what is not trained yet, build the book
	$(RUN) -m srgan_lib experiments --for-book --profile $(PROFILE)
	$(JUPYTER_BOOK) build . -W -n --keep-going
	@# 5 MB that no browser asks for, and the pictures of earlier builds.
	@find _build/html/_static -name "*.map" -delete -o -name "*.ttf" -delete
	@rm -rf _build/html/_static/locales
	@mkdir -p _build/html/_images
	@cd _build/html && find _images -type f \
	  ! -exec grep -qF {} *.html book/*.html \; -delete
	@echo "Open $(CURDIR)/_build/html/index.html"
endif

# The library as one file, for who runs a chapter's notebook elsewhere.
$(WHEEL): pyproject.toml $(shell find srgan_lib -type f -not -name "*.pyc" \
  2>/dev/null) \
  | $(READY)
	@rm -rf build $(@D)
	@mkdir -p $(@D)
	@$(RUN) -c 'from setuptools import build_meta; \
	  build_meta.build_wheel("$(@D)")' > _build/wheel.log 2>&1 \
	  || { cat _build/wheel.log; exit 1; }
	@rm -rf build
	@touch $@

pdf: book  ## print the built book as one PDF; needs Chromium
	$(RUN) tools/print_book.py _build/html _build/book.pdf
	@echo "Open $(CURDIR)/_build/book.pdf"

experiments: $(READY)  ## only train what is not trained yet
	$(RUN) -m srgan_lib experiments --profile $(PROFILE)

faults: $(READY)  ## train the long faults of chapter 11, half an hour
	$(RUN) tools/faults.py

bench: $(READY)  ## measure speed, beside what else is in use, half an hour
	@$(RUN) -c "import piq, resize_right, torchmetrics" 2>/dev/null \
	  || $(RUN) -m pip install -c _build/keep.txt -e ".[bench]"
	$(RUN) -m benchmarks

test: $(READY)  ## the tests, a few minutes
	$(RUN) -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(READY)  ## the long tests
	$(RUN) -m pytest -m slow -n 2 --dist loadfile

lint: $(READY)  ## look for faults in the code
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(READY)  ## put the code into its one format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# Small ones first: what fails stops the rest.
SETS ?= Set5 Set14 B100 Urban100 DIV2K-valid DIV2K
data: $(READY)  ## fetch DIV2K and the test sets, or SETS="Set5 Set14"
	$(RUN) -m srgan_lib data $(SETS)

clean:  ## remove what was built; runs/, data/ and .venv stay
	rm -rf _build .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path "./.venv/*" -exec rm -rf {} +

.venv/ready: requirements.txt pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON)\
	 here: install Python 3.11 or later, or name it: PYTHON=..."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) \
	  else "Python 3.11 or later is needed, and this is %s. Name a newer \
	one: PYTHON=python3.12" % sys.version.split()[0])'
	@"$(PYTHON)" -c "import ensurepip, venv" 2>/dev/null || { echo \
	  "$(PYTHON) cannot make environments. On Debian and Ubuntu:\
	 sudo apt install python3-venv"; exit 1; }
	@echo "Making .venv with $(PYTHON); on Linux 6 GB on disk, half to download."
	"$(PYTHON)" -m venv --clear .venv
	.venv/bin/python -m pip install --no-compile -r requirements.txt
	.venv/bin/python -m pip install --no-deps --no-build-isolation -e .
	@echo "$(CURDIR)" > $@

# The torch that is there stays, whatever pip would rather have.
_build/.ready%: pyproject.toml
	@$(RUN) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) \
	  else "Python 3.11 or later is needed, and this is %s." \
	  % sys.version.split()[0])'
	@$(RUN) -c "import torchvision" 2>/dev/null || { echo "$(OWN) has torch and no\
	 torchvision that works with it: install it from where torch came."; \
	  exit 1; }
	@mkdir -p _build
	@$(RUN) -c 'from importlib.metadata import version; \
	  [print(p + "==" + version(p)) for p in ("torch", "torchvision")]' \
	  > _build/keep.txt
	$(RUN) -m pip install -c _build/keep.txt -e ".[book,test]"
	@touch "$@"
