#!/usr/bin/env bash
# Builds images and tells what they are made of: k8s/images.sh [preprocessing] [trainer] [trainer-gpu]
# REGISTRY, TAG: the name, such as europe-docker.pkg.dev/project/cartwheel and v1; push it with your engine.
# BUILD, RUN: the engine, Docker if they are not set.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$(git rev-parse --short=12 HEAD)
for target in "${@:-trainer}"; do
  image=${REGISTRY:-cartwheel}/$target:${TAG:-latest}
  ${BUILD:-docker build} -f k8s/Dockerfile --target "$target" --build-arg COMMIT="$commit" --build-arg VERSION="${TAG:-latest}" \
    --tag "$image" .
  echo "$image, MB in all and of its ten largest parts:"
  ${RUN:-docker run --rm} --entrypoint sh "$image" -c '
    cd /opt/cartwheel/lib/python3.11/site-packages
    { du -xsm / --exclude=/proc --exclude=/sys; du -sm /usr * ; } 2>/dev/null | sort -rn | head -n 11'
done
