"""The page: `/` and the files it is made of."""

from pathlib import Path

from aiohttp import web

PAGE = Path(__file__).parents[1] / "page"


def routes() -> list[web.AbstractRouteDef]:
    """`/` and the files it is made of."""

    async def index(_: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    return [web.get("/", index), web.static("/page", PAGE)]
