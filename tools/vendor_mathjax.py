"""Put MathJax under book/_static/mathjax, so that the book needs no network.

Run by hand, once for each new version: python tools/vendor_mathjax.py
"""

import base64
import hashlib
import io
import shutil
import tarfile
import urllib.request
from pathlib import Path

VERSION = "3.2.2"
URL = f"https://registry.npmjs.org/mathjax/-/mathjax-{VERSION}.tgz"
SHA512 = (  # from `npm view mathjax@3.2.2 dist.integrity`
    "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/"
    "O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw=="
)
TARGET = Path(__file__).parents[1] / "book/_static/mathjax"
# The component Sphinx asks for, the fonts it draws with, and the TeX
# extensions it fetches from beside itself when a formula uses one.
WANTED = (
    "LICENSE",
    "es5/tex-mml-chtml.js",
    "es5/output/chtml/fonts/woff-v2/",
    "es5/input/tex/extensions/",
)


def main():
    with urllib.request.urlopen(URL) as response:
        archive = response.read()
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if digest != SHA512:
        raise SystemExit(f"{URL} is not the archive that was checked.")
    shutil.rmtree(TARGET, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar.getmembers():
            name = member.name.removeprefix("package/")
            if member.isfile() and name.startswith(WANTED):
                path = TARGET / name.removeprefix("es5/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())


if __name__ == "__main__":
    main()
