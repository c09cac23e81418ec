#!/usr/bin/env bash
# MONAI Label 0.8.5 in an environment of its own: `tools/monai_label/install.sh FOLDER`, then `. FOLDER/bin/activate`.
# What is there already in the versions of requirements.txt stays unchanged; an older environment that this script has
# made in FOLDER/ is replaced, and nothing else is.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -ne 1 ]; then
    echo "error: found $# arguments, expected the folder of the environment: install.sh FOLDER" >&2
    exit 1
fi
folder=$1
marker=$folder/made_by_pretext3d.txt    # written first: what is next to it may be replaced
stamp=$folder/installed.txt             # written last: an installation that broke off is started again
if [ ! -f "$marker" ] && { [ -L "$folder" ] || { [ -e "$folder" ] && [ ! -d "$folder" ]; } \
    || [ -n "$(ls -A "$folder" 2> /dev/null)" ]; }; then
    echo "error: $folder: found something that this script has not made, expected its own environment or nothing" >&2
    exit 1
fi
if cmp -s "$stamp" <(cat "$here/install.sh" "$here/requirements.txt"); then
    echo "MONAI Label is in $folder already"
    exit 0
fi

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: python3 is older than Python 3.11")'
export PIP_DISABLE_PIP_VERSION_CHECK=1
mkdir -p "$folder"
echo "MONAI Label's environment: tools/monai_label/install.sh replaces all files next to this one" > "$marker"
find "$folder/" -mindepth 1 ! -path "$folder/made_by_pretext3d.txt" -delete
python3 -m venv "$folder"
pip=("$folder/bin/python" -m pip install --quiet --no-compile)
"${pip[@]}" --constraint "$here/requirements.txt" torch==2.13.0 setuptools
# no-deps: pydicom-seg and numpymaxflow ask for NumPy 1, MONAI Label for sam2; the file names all that the server imports
"${pip[@]}" --no-deps --requirement "$here/requirements.txt"

# It imports torchvision for pathology alone. One that was built for another torch cannot be imported: then two functions
# that report this take its place.
"${pip[@]}" --no-deps torchvision==0.28.0 || echo "no torchvision here"
if ! "$folder/bin/python" -c 'import torchvision.utils' 2> /dev/null; then
    echo "torchvision does not work with this torch: a substitute without pathology is put there"
    "$folder/bin/python" -m pip uninstall --quiet --yes torchvision 2> /dev/null
    cp -r "$here/torchvision" "$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/torchvision"
fi
"$folder/bin/python" -c 'import monailabel.main, torchvision.utils'
cat "$here/install.sh" "$here/requirements.txt" > "$stamp"
echo "MONAI Label is in $folder"
