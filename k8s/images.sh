#!/usr/bin/env bash
# Builds images and lists their largest parts: k8s/images.sh [preprocessing] [trainer] [trainer-gpu]
# REGISTRY, TAG: of the image, such as europe-docker.pkg.dev/project/cartwheel and v1; push it with your engine.
# BUILD, RUN: commands of the container engine (default: Docker).
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$(git rev-parse --short=12 HEAD)
for target in "${@:-trainer}"; do
  image=${REGISTRY:-cartwheel}/$target:${TAG:-latest}
  ${BUILD:-docker build} -f k8s/Dockerfile --target "$target" --build-arg COMMIT="$commit" --build-arg VERSION="${TAG:-latest}" \
    --tag "$image" .
  echo "$image, MB in total and of its ten largest parts:"
  ${RUN:-docker run --rm} --entrypoint sh "$image" -c '
    cd /opt/cartwheel/lib/python3.11/site-packages
    { du -xsm / --exclude=/proc --exclude=/sys; du -sm /usr * ; } 2>/dev/null | sort -rn | head -n 11'
done
