# The pinned environment on Debian with Python 3.11:  docker build -t hieros . && docker run -v "$PWD/outputs:/hieros/outputs" hieros train
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends git libegl1 libgl1 libgl1-mesa-dri && rm -rf /var/lib/apt/lists/*
WORKDIR /hieros
COPY . .
RUN ./hieros doctor
ENTRYPOINT ["./hieros"]
CMD ["train"]
