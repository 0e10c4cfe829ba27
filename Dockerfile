# pullgate in a container. `docker build -t pullgate .`, then
#   docker run --rm -e DATABASE_URL=… pullgate node dist/cli/pullgate.js migrate
#   docker run -e DATABASE_URL=… -e PULLGATE_HOST=0.0.0.0 -e PULLGATE_AUTH=off -p 127.0.0.1:8080:8080 pullgate
# PULLGATE_AUTH=off: anybody who reaches the port may take jobs, so publish it only where you trust everybody.
ARG NODE_IMAGE=node:24-bookworm-slim

# Optional dependencies are the Postgres binaries of the default that needs no database; here DATABASE_URL names one.
FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=optional --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN npm run build

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund

FROM ${NODE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pullgate" \
      org.opencontainers.image.description="A pull gateway for jobs that live in Postgres" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV NODE_ENV=production
WORKDIR /app
COPY package.json LICENSE ./
COPY --from=dependencies /app/node_modules node_modules
COPY sql sql
# What the demo publishes.
COPY examples/specs examples/specs
COPY --from=build /app/dist dist
# The image's `node` user by number, so that runAsNonRoot can be checked.
USER 1000:1000
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 CMD ["node", "dist/cli/pullgate.js", "health"]
CMD ["node", "dist/cli/pullgate.js", "serve"]
