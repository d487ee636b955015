"""Flag combinations of `create`; what the docker CLI makes of each is recorded in data/create.json by record.py.

Every case is an argument list after `create`. The working directory holds the files of FILES.
"""

FILES = {
    "a.env": "A=1\n# comment\n\nB=two words\nFROM_HOST\n  LEADING=x\nEMPTY=\nC='q'\n",
    "bad.env": "GOOD=1\nin valid=2\n",
    "noname.env": "=x\n",
    "b.env": "A=later\nZ=9\n",
    "a.labels": "l1=v1\n# no\nl2\nl3=\n",
    "seccomp.json": '{\n  "defaultAction": "SCMP_ACT_ALLOW",\n  "syscalls": [ { "names": ["a b"], "action": "SCMP_ACT_ERRNO" } ]\n}\n',
    "broken.json": "{ nope",
}

_TEXT = r"""
c-img
c-img true
c-img sh -c 'echo hi'
-it c-img sh
-i c-img cat
-t c-img
-itd c-img
-a stdin c-img
-a stdout -a STDERR c-img
-a stdin -i c-img
-a bogus c-img
--attach=stdout c-img
--add-host a:1.2.3.4 --add-host=b=::1 --add-host c:host-gateway c-img
--add-host nope c-img
--add-host a:notip c-img
--annotation a=b --annotation c c-img
--annotation =b c-img
--blkio-weight 300 c-img
--blkio-weight 70000 c-img
--blkio-weight x c-img
--blkio-weight-device /dev/sda:200 --blkio-weight-device /dev/sdb:0 c-img
--blkio-weight-device /dev/sda c-img
--blkio-weight-device /dev/sda:5 c-img
--blkio-weight-device sda:500 c-img
--cap-add NET_ADMIN --cap-add=SYS_TIME --cap-drop ALL c-img
--cgroup-parent /foo c-img
--cgroupns host c-img
--cgroupns private c-img
--cgroupns x c-img
--cpu-count 2 --cpu-percent 50 c-img
--cpu-period 100000 --cpu-quota 50000 c-img
--cpu-rt-period 1000 --cpu-rt-runtime 500 c-img
-c 512 c-img
-c512 c-img
--cpu-shares=x c-img
--cpus 1.5 c-img
--cpus .25 c-img
--cpus x c-img
--cpus 0.0000000001 c-img
--cpus 1/3 c-img
--cpuset-cpus 0-1 --cpuset-mems 0 c-img
--device /dev/null c-img
--device /dev/null:/dev/x:rw c-img
--device /dev/null:r c-img
--device /dev/null:/dev/x c-img
--device null c-img
--device /dev/null:/dev/x:q c-img
--device a:b:c:d c-img
--device vendor.com/class=name c-img
--device-cgroup-rule 'c 1:3 rwm' --device-cgroup-rule 'a *:* r' c-img
--device-cgroup-rule nope c-img
--device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:1024 c-img
--device-read-iops /dev/sda:100 --device-write-iops /dev/sda:200 c-img
--device-read-bps sda:1mb c-img
--device-read-bps /dev/sda:x c-img
--device-read-bps /dev/sda c-img
--device-read-iops /dev/sda:1mb c-img
--dns 1.1.1.1 --dns ::1 --dns-search example.com --dns-option ndots:2 c-img
--dns nope c-img
--dns-search . c-img
--dns-search 'bad domain' c-img
--dns-opt timeout:1 c-img
--domainname d.example -h host1 c-img
--hostname=h2 c-img
--entrypoint /bin/sh c-img -c x
--entrypoint '' c-img
--entrypoint= c-img arg
-e A=1 -e B -e FROM_HOST c-img
-e A=1 -e A=2 c-img
-e '' c-img
-e =x c-img
-e MISSING_IN_HOST c-img
--env-file a.env c-img
--env-file a.env --env-file b.env -e B=over c-img
--env-file bad.env c-img
--env-file noname.env c-img
--env-file missing.env c-img
--expose 80 --expose 90-92/udp c-img
--expose 80:90 c-img
--expose x c-img
--expose 99999 c-img
--expose 90-80 c-img
--gpus all c-img
--gpus 2 c-img
--gpus 'device=0,driver=nvidia' c-img
--gpus '"device=0,1","capabilities=utility,compute"' c-img
--gpus 'count=x' c-img
--gpus 'bogus=1' c-img
--group-add audio --group-add 1000 c-img
--health-cmd 'curl -f x' --health-interval 5s --health-retries 3 --health-timeout 1m30s --health-start-period 500ms --health-start-interval 1s c-img
--health-interval x c-img
--health-interval 10 c-img
--health-interval -1s c-img
--health-retries -1 c-img
--no-healthcheck c-img
--no-healthcheck --health-cmd x c-img
--init c-img
--init=false c-img
--init=maybe c-img
--io-maxbandwidth 1g --io-maxiops 5 c-img
--ip 172.30.0.5 --network mynet c-img
--ip nope c-img
--ip6 2001:db8::33 --network mynet c-img
--ipc host c-img
--ipc container:abc c-img
--ipc shareable c-img
--isolation default c-img
--kernel-memory 1g c-img
-l a=b -l c --label d= c-img
-l =x c-img
-l '' c-img
--label-file a.labels -l l1=over c-img
--label-file missing.labels c-img
--link db:alias --network mynet c-img
--link db c-img
--link db:a:b c-img
--link-local-ip 169.254.1.1 --network mynet c-img
--log-driver json-file --log-opt max-size=10m --log-opt max-file=3 c-img
--log-driver none --log-opt a=b c-img
--log-opt novalue c-img
--mac-address 92:d0:c6:0a:29:33 c-img
--mac-address zz c-img
-m 512m --memory-reservation 256M --memory-swap 1g c-img
-m 1.5g c-img
-m 100 c-img
-m x c-img
-m -1 c-img
-m 10kib c-img
-m '10 kb' c-img
-m 1e3 c-img
--memory-swap -1 c-img
--memory-swappiness 50 c-img
--memory-swappiness 101 c-img
--memory-swappiness -2 c-img
--mount type=bind,source=/tmp,target=/x,readonly c-img
--mount type=bind,src=/tmp,dst=/x,ro=false,bind-propagation=rslave c-img
--mount type=bind,src=/tmp,dst=/x,bind-recursive=disabled c-img
--mount type=bind,src=/tmp,dst=/x,readonly,bind-recursive=readonly,bind-propagation=rprivate c-img
--mount type=bind,src=/tmp,dst=/x,bind-recursive=writable c-img
--mount type=bind,src=/tmp,dst=/x,bind-recursive=nope c-img
--mount type=bind,src=/tmp,dst=/x,bind-nonrecursive c-img
--mount type=bind,src=relative,dst=/x c-img
--mount type=bind,src=./relative,dst=/x c-img
--mount src=vol,dst=/data c-img
--mount type=volume,src=vol,dst=/data,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=o=x,volume-subpath=sub c-img
--mount type=volume,dst=/data c-img
--mount type=tmpfs,dst=/t,tmpfs-size=10m,tmpfs-mode=1777 c-img
--mount type=tmpfs,dst=/t c-img
--mount type=image,src=c-img,dst=/i c-img
--mount type=image,src=c-img,dst=/i,image-subpath=usr c-img
--mount type=bind,target= c-img
--mount type=bind c-img
--mount type=bind,bogus=1 c-img
--mount bogus c-img
--mount type=tmpfs,dst=/t,volume-nocopy c-img
--mount type=bind,dst=/x,tmpfs-size=1m c-img
--mount type=tmpfs,dst=/t,bind-propagation=shared c-img
--mount type=tmpfs,dst=/t,tmpfs-size=x c-img
--mount type=tmpfs,dst=/t,tmpfs-mode=9 c-img
--mount type=bind,src=/tmp,dst=/x,readonly=maybe c-img
--mount '' c-img
--mount type=bind,src=/tmp,dst=/x,consistency=cached c-img
--mount 'type=bind,"src=/a,b",dst=/x' c-img
--mount type=volume,dst=/x,ro,volume-nocopy=false c-img
--mount type=npipe,src=/a,dst=/x c-img
--mount type=image,src=a,dst=/x,volume-nocopy c-img
--name c-name c-img
--network host c-img
--network none c-img
--network bridge c-img
--network container:abc c-img
--network default c-img
--network mynet --network-alias a1 --network-alias a2 c-img
--network name=mynet,alias=x,ip=172.18.0.4,driver-opt=a=b,gw-priority=5,mac-address=92:d0:c6:0a:29:33 c-img
--network name=mynet,ip6=2001:db8::1,link-local-ip=169.254.1.2 c-img
--network name=n1 --network n2 c-img
--network n1 --network n1 c-img
--network host --network n1 c-img
--network bridge --network-alias a c-img
--network name=mynet,bogus=1 c-img
--network name=mynet,alias=a --network-alias b c-img
--network name=mynet,ip=1.2.3.4 --ip 1.2.3.5 c-img
--network name=mynet,ip=x c-img
--network '' c-img
--network alias=b c-img
--network name=mynet,nope c-img
--network name=mynet,driver-opt=x c-img
--network name=mynet,gw-priority=x c-img
--network name=mynet,mac-address=zz c-img
--net mynet --net-alias q c-img
--network mynet --mac-address 92:d0:c6:0a:29:33 c-img
--oom-kill-disable c-img
--oom-score-adj 500 c-img
--oom-score-adj x c-img
--pid host c-img
--pid container:abc c-img
--pid nope c-img
--pid container: c-img
--pids-limit 100 c-img
--pids-limit -1 c-img
--platform linux/amd64 c-img
--platform linux/arm/v7 c-img
--platform linux c-img
--platform a/b/c/d c-img
--privileged c-img
--privileged=false c-img
-p 80 c-img
-p 8080:80 c-img
-p8080:80/udp c-img
-p 127.0.0.1:8080:80 c-img
-p 127.0.0.1::80 c-img
-p '[::1]:8080:80' c-img
-p 8000-8002:80-82 c-img
-p 8000-8010:80 c-img
-p 80-82 c-img
-p 8000-8001:80-82 c-img
-p 8080:80 -p 8081:80 --expose 80 --expose 81 -P c-img
-p target=80,published=8080,protocol=udp c-img
-p target=80 c-img
-p published=8080 c-img
-p target=80,bogus c-img
-p target=80,bogus=1 c-img
-p x c-img
-p 70000:80 c-img
-p 80:70000 c-img
-p 1.2.3:80:80 c-img
-p nohost:80:80 c-img
-p 80/xyz c-img
-p 80/TCP c-img
-p '' c-img
-p :80 c-img
-p 8080: c-img
-p ::80 c-img
-p a:b:c:d c-img
-p 90-80:80 c-img
-p 0:80 c-img
--publish-all c-img
--pull never c-img
--pull always c-img
--pull bogus c-img
--read-only c-img
--restart always c-img
--restart on-failure:3 c-img
--restart on-failure c-img
--restart unless-stopped c-img
--restart bogus c-img
--restart on-failure:x c-img
--restart always:3 c-img
--restart a:b:c c-img
--restart '' c-img
--restart on-failure:-1 c-img
--restart :3 c-img
--restart always --rm c-img
--restart no --rm c-img
--rm c-img
--runtime runc c-img
--security-opt no-new-privileges c-img
--security-opt no-new-privileges:true --security-opt label=disable c-img
--security-opt apparmor:unconfined --security-opt seccomp=unconfined c-img
--security-opt seccomp=seccomp.json c-img
--security-opt seccomp=broken.json c-img
--security-opt seccomp=missing.json c-img
--security-opt seccomp=builtin c-img
--security-opt systempaths=unconfined c-img
--security-opt nope c-img
--security-opt writable-cgroups=true c-img
--shm-size 128m c-img
--stop-signal SIGINT --stop-timeout 5 c-img
--stop-timeout 0 c-img
--storage-opt size=10G c-img
--storage-opt nope c-img
--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=1 c-img
--sysctl bogus.x=1 c-img
--sysctl nope c-img
--tmpfs /run --tmpfs /tmp:size=10m,mode=1777 c-img
--ulimit nofile=1024:2048 --ulimit core=0 c-img
--ulimit nofile=1024 --ulimit nofile=10 c-img
--ulimit nope=1 c-img
--ulimit nofile=5:1 c-img
--ulimit nofile=x c-img
--ulimit nofile=1:x c-img
--ulimit nofile c-img
--ulimit nofile=-1:-1 c-img
--ulimit nofile=1:2:3 c-img
-u 1000:1000 c-img
--user nobody c-img
--userns host c-img
--userns x c-img
--uts host c-img
--uts x c-img
-v /tmp:/x c-img
-v /tmp:/x:ro -v vol:/data c-img
-v /anon c-img
-v ./rel:/x c-img
-v .:/x c-img
-v ~/a:/x c-img
-v /a:/b:c:d c-img
-v vol:/data:nocopy -v vol:/data2:z,ro c-img
-v '' c-img
-v /tmp:/x --mount type=tmpfs,dst=/t --tmpfs /y c-img
-v vol:rel c-img
-v :/x c-img
-v a: c-img
-v //x//y:/z c-img
--volume-driver local -v vol:/x c-img
--volume-driver local --mount type=volume,src=v,dst=/x c-img
--volumes-from other:ro --volumes-from o2 c-img
-w /srv c-img
--bogus c-img
-Z c-img
-iZ c-img
--name
--name= c-img
-p
--tty=x c-img
-t=false c-img
-t=x c-img
-it=false c-img
--=x c-img
---x c-img
-=x c-img
-- c-img -x
c-img --rm
-e
Upper c-img
Upper/Case
c-img:bad:tag
:x
sha256:abc
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
host:5000/a/b:1.0 cmd
localhost/x
a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
--cidfile x.cid c-img
--use-api-socket c-img
-d c-img
--sig-proxy c-img
-h
--help=x c-img
--quiet c-img
-q c-img
"""


def cases() -> list[list[str]]:
    """The argument lists, in order."""
    import shlex

    return [shlex.split(line) for line in _TEXT.strip().splitlines()]
