"""The names of all commands of the docker CLI, so that one that is missing here is not called unknown."""

NAMES = frozenset(
    name.strip()
    for name in """
attach, bake, build, builder build, builder prune, checkpoint create, checkpoint ls, checkpoint rm, commit,
container attach, container commit, container cp, container create, container diff, container exec, container
export, container inspect, container kill, container logs, container ls, container pause, container port,
container prune, container rename, container restart, container rm, container run, container start, container
stats, container stop, container top, container unpause, container update, container wait, context create,
context export, context import, context inspect, context ls, context rm, context show, context update, context
use, cp, create, diff, events, exec, export, history, image build, image history, image import, image inspect,
image load, image ls, image prune, image pull, image push, image rm, image save, image tag, images, import,
info, inspect, kill, load, login, logout, logs, manifest annotate, manifest create, manifest inspect, manifest
push, manifest rm, network connect, network create, network disconnect, network inspect, network ls, network
prune, network rm, pause, plugin create, plugin disable, plugin enable, plugin inspect, plugin install, plugin
ls, plugin push, plugin rm, plugin set, plugin upgrade, port, ps, pull, push, rename, restart, rm, rmi, run,
save, search, start, stats, stop, system df, system dial-stdio, system events, system info, system prune, tag,
top, unpause, update, version, volume create, volume inspect, volume ls, volume prune, volume rm, wait
""".replace("\n", " ").split(",")
)
