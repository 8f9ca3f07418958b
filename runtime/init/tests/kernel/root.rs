// SPDX-License-Identifier: Apache-2.0
//! The operations that make a root: each one seen from inside.

use crate::Test;
use crate::fixture::{Fixture, bind, bind_of, device, mount, mount_with};
use hull_init::plan::{Attrs, Namespace, Op, Propagation, Source, Step};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount as mount_here, mount_bind, mount_change,
    unmount,
};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

pub(crate) const TESTS: &[Test] = &[
    ("root::what_is_written_goes_to_the_upper_layer", written),
    ("root::more_layers_than_fit_a_page", many_layers),
    ("root::layers_and_upper_layer_with_long_and_odd_paths", long_paths),
    ("root::a_directory_can_be_the_root", directory_root),
    ("root::a_bind_is_read_only_with_all_below", read_only_bind),
    ("root::flags_of_a_bind_are_set_and_cleared", bind_flags),
    ("root::a_shared_bind_passes_mounts_back_and_a_slave_does_not", propagation),
    ("root::tmpfs_starts_with_what_the_image_has", copy_up),
    ("root::a_tmpfs_has_the_mode_of_its_place_and_is_read_only_with_mounts_in_it", tmpfs),
    ("root::no_link_of_the_image_leads_a_mount_outside", links_out),
    ("root::the_aim_of_a_dangling_link_is_made_inside", dangling),
    ("root::a_circle_of_links_is_an_error", circle),
    ("root::masked_paths_are_empty", mask),
    ("root::a_false_null_device_masks_nothing", false_null),
    ("root::readonly_paths_cannot_be_written", readonly),
    ("root::the_root_can_be_read_only", root_readonly),
    ("root::devices_fifos_and_links_are_what_was_asked_for", nodes),
    ("root::settings_are_the_namespaces_own", settings),
    ("root::the_host_cannot_be_reached", host_is_gone),
    ("root::cgroups_show_the_containers_own_part", cgroups),
];

fn written(fixture: &Fixture) {
    let plan = fixture.plan("echo changed > /etc/new; rm /bin/true; cat /etc/new", Vec::new());
    assert_eq!(fixture.run(&plan).out, "changed");
    let Op::RootOverlay { upper: Some((upper, _)), .. } = &plan.ops[0] else { unreachable!() };
    assert_eq!(fs::read_to_string(format!("{upper}/etc/new")).unwrap(), "changed\n");
    assert!(!fixture.path("image/etc/new").try_exists().unwrap());
    fs::symlink_metadata(fixture.path("image/bin/true")).unwrap();
}

fn many_layers(fixture: &Fixture) {
    let mut plan = fixture.plan("cat /layer; ls /layers | wc -l", Vec::new());
    let Op::RootOverlay { lower, .. } = &mut plan.ops[0] else { unreachable!() };
    // 100 paths of over 60 bytes: mount(2) takes no more than 4096 in all.
    for number in 0..100 {
        let layer =
            fixture.path(&format!("layer-with-a-name-as-long-as-that-of-a-digest-{number:03}"));
        fs::create_dir_all(layer.join("layers")).unwrap();
        fs::write(layer.join("layer"), format!("{number}")).unwrap();
        fs::write(layer.join(format!("layers/{number}")), "").unwrap();
        lower.insert(usize::try_from(number).unwrap(), layer.display().to_string());
    }
    assert_eq!(fixture.run(&plan).out, "0100", "the first of them lies on top");
}

/// Longer than what the newer form of mounting takes (255 bytes), in sum than what the older one does, with what
/// the older form splits at; with and without a user namespace.
fn long_paths(fixture: &Fixture) {
    let deep = fixture.path(&format!("{}/a,b:c\\d", "d".repeat(240)));
    fs::create_dir_all(&deep).unwrap();
    let make = |name: &str| {
        let layer = deep.join(name);
        fs::create_dir_all(&layer).unwrap();
        layer.display().to_string()
    };
    for user in [Namespace::Inherit, Namespace::New] {
        let mut plan = fixture.plan("ls /layers | wc -l; echo new > /new", Vec::new());
        let way = if user == Namespace::New { "mapped" } else { "plain" };
        let Op::RootOverlay { lower, upper, .. } = &mut plan.ops[0] else { unreachable!() };
        for number in 0..60 {
            let layer = make(&format!("{way}-{number}"));
            fs::create_dir_all(format!("{layer}/layers")).unwrap();
            fs::write(format!("{layer}/layers/{number}"), "").unwrap();
            lower.insert(0, layer);
        }
        let written = make(&format!("{way}-upper"));
        *upper = Some((written.clone(), make(&format!("{way}-work"))));
        plan.namespaces.user = user;
        if plan.namespaces.user == Namespace::New {
            plan.id_maps = crate::users::maps(100_000);
        }
        assert_eq!(fixture.run(&plan).out, "60", "{way}");
        assert_eq!(fs::read_to_string(format!("{written}/new")).unwrap(), "new\n", "{way}");
    }
}

fn directory_root(fixture: &Fixture) {
    let mut plan = fixture.plan("ls -d /bin; touch /here", Vec::new());
    plan.ops[0] = Op::RootBind { source: fixture.text("image") };
    assert_eq!(fixture.run(&plan).out, "/bin");
    assert!(fixture.path("image/here").try_exists().unwrap());
}

/// A tmpfs with one below it, in our own mount namespace; taken away when dropped.
struct Volume(String);

impl Volume {
    fn new(fixture: &Fixture) -> Self {
        let at = fixture.text("volume");
        for (at, flags) in
            [(at.clone(), MountFlags::empty()), (format!("{at}/below"), MountFlags::NOEXEC)]
        {
            fs::create_dir(&at).unwrap();
            mount_here("volume", &at, "tmpfs", flags, None).unwrap();
        }
        Self(at)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

fn read_only_bind(fixture: &Fixture) {
    let volume = Volume::new(fixture);
    let read_only = Attrs { rdonly: true, ..Attrs::default() };
    let try_both =
        "for at in /v /v/below; do touch $at/x 2>/dev/null && echo wrote $at; done; true";
    let mut top = bind(&volume.0, "/v");
    let Op::Bind { attrs, .. } = &mut top else { unreachable!() };
    *attrs = read_only;
    assert_eq!(fixture.says(try_both, vec![top]), "wrote /v/below");
    let mut all = bind(&volume.0, "/v");
    let Op::Bind { recursive_attrs, .. } = &mut all else { unreachable!() };
    *recursive_attrs = read_only;
    assert_eq!(fixture.says(try_both, vec![all]), "");
    fs::write(format!("{}/host", volume.0), "the host's own mount stays writable").unwrap();
}

fn bind_flags(fixture: &Fixture) {
    let volume = Volume::new(fixture);
    let options = "while read -r _ _ _ _ at options _; do [ $at = /v ] && echo $options; done < /proc/self/mountinfo; true";
    let mut below = bind(&format!("{}/below", volume.0), "/v");
    assert!(
        fixture.says(options, vec![below.clone()]).contains("noexec"),
        "the source's flags stay"
    );
    let Op::Bind { attrs, clear, .. } = &mut below else { unreachable!() };
    *attrs = Attrs { nosuid: true, nodev: true, noatime: true, ..Attrs::default() };
    *clear = Attrs { noexec: true, ..Attrs::default() };
    assert_eq!(fixture.says(options, vec![below]), "rw,nosuid,nodev,noatime");
}

fn propagation(fixture: &Fixture) {
    let at = fixture.text("volume");
    fs::create_dir_all(format!("{at}/sub")).unwrap();
    mount_bind(&at, &at).unwrap();
    mount_change(&at, MountPropagationFlags::SHARED).unwrap();
    for (propagation, comes_back) in
        [(Propagation::Slave, false), (Propagation::Private, false), (Propagation::Shared, true)]
    {
        let mut op = bind(&at, "/v");
        let Op::Bind { propagation: of, .. } = &mut op else { unreachable!() };
        *of = Some(propagation);
        let mut plan =
            fixture.plan("mount -t tmpfs none /v/sub && echo mounted; read -r _; true", vec![op]);
        let sys_admin = 1 << 21;
        plan.process.capabilities.bounding |= sys_admin;
        plan.process.capabilities.permitted |= sys_admin;
        plan.process.capabilities.effective |= sys_admin;
        let mut running = fixture.start(&plan, &[]).unwrap();
        assert_eq!(running.line(), "mounted");
        let seen = fs::read_to_string("/proc/self/mountinfo").unwrap().contains("/volume/sub");
        assert_eq!(seen, comes_back, "{propagation:?}");
        assert_eq!(running.wait().code, 0);
    }
    unmount(format!("{at}/sub"), UnmountFlags::DETACH).unwrap();
    unmount(&at, UnmountFlags::DETACH).unwrap();
}

fn copy_up(fixture: &Fixture) {
    let image = fixture.path("image/data");
    fs::create_dir_all(image.join("sub")).unwrap();
    fs::write(image.join("sub/file"), "content").unwrap();
    fs::set_permissions(image.join("sub/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(image.join("sub"), Some(7), Some(8)).unwrap();
    symlink("/etc/passwd", image.join("link")).unwrap();
    let device = makedev(1, 3);
    for (name, kind, device) in
        [("fifo", FileType::Fifo, 0), ("null", FileType::CharacterDevice, device)]
    {
        mknodat(CWD, image.join(name), kind, Mode::empty(), device).unwrap();
        fs::set_permissions(image.join(name), fs::Permissions::from_mode(0o626)).unwrap();
        std::os::unix::fs::chown(image.join(name), Some(7), Some(8)).unwrap();
    }
    let _listener = std::os::unix::net::UnixListener::bind(image.join("socket")).unwrap();
    let mut op = mount_with("tmpfs", "/data", &[("mode", "0700")]);
    let Op::Mount { copy_up, attrs, .. } = &mut op else { unreachable!() };
    *copy_up = true;
    *attrs = Attrs { rdonly: true, ..Attrs::default() };
    let script = "cat /data/sub/file; echo; stat -c '%a %u:%g' /data/sub/file /data/sub; readlink /data/link; \
                  touch /data/x 2>/dev/null && echo writable; stat -f -c %T /data; \
                  stat -c '%F %a %u:%g %t:%T' /data/fifo /data/null; test -S /data/socket && echo socket";
    let want = "content\n4711 0:0\n755 7:8\n/etc/passwd\ntmpfs\nfifo 626 7:8 0:0\n\
                character special file 626 7:8 1:3\nsocket";
    assert_eq!(fixture.says(script, vec![op]), want);
}

fn tmpfs(fixture: &Fixture) {
    let place = fixture.path("image/place");
    fs::create_dir_all(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o1730)).unwrap();
    let mut outer = mount("tmpfs", "/place");
    let Op::Mount { attrs, .. } = &mut outer else { unreachable!() };
    attrs.rdonly = true;
    let ops =
        vec![outer, mount("tmpfs", "/place/in"), mount_with("tmpfs", "/own", &[("mode", "711")])];
    let script = "stat -c %a /place /place/in /own; touch /place/x 2>/dev/null || echo read-only; \
                  touch /place/in/x && echo writable";
    assert_eq!(fixture.says(script, ops), "1730\n1777\n711\nread-only\nwritable");
}

fn links_out(fixture: &Fixture) {
    let outside = fixture.text("outside");
    let climbing = format!("../../../../../../../../../../..{outside}");
    for (number, aim) in [outside.as_str(), climbing.as_str()].into_iter().enumerate() {
        let link = fixture.path(&format!("image/evil{number}"));
        symlink(aim, link).unwrap();
        let target = format!("/evil{number}");
        let ops = vec![
            mount("tmpfs", &target),
            device(&format!("{target}/null"), 1, 3),
            bind("/etc/hostname", &format!("{target}/deep/file")),
        ];
        // The mount is at the link's aim, but inside.
        let script = format!("stat -f -c %T {outside}; ls {outside}");
        assert_eq!(fixture.says(&script, ops), "tmpfs\ndeep\nnull");
    }
    fs::remove_dir(fixture.path("image/dev")).unwrap();
    symlink(&outside, fixture.path("image/dev")).unwrap();
    let error = fixture.failure(&fixture.plan("true", vec![device("/dev/null", 1, 3)]));
    assert_eq!((error.step, error.errno), (Step::Op(2), Errno::LOOP.raw_os_error()), "{error:?}");
    let mkdir = Op::Mkdir { path: "/evil0/made".into(), mode: 0o755 };
    let link = Op::Symlink { content: "x".into(), path: "/evil1/link".into() };
    fixture.says("test -d /evil0/made", vec![mkdir, link]);
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0, "something was made outside");
}

fn dangling(fixture: &Fixture) {
    symlink("../run/systemd/../resolve/resolv.conf", fixture.path("image/etc/resolv.conf"))
        .unwrap();
    symlink("/var/run", fixture.path("image/run")).unwrap();
    fs::write(fixture.path("resolv"), "nameserver 192.0.2.1\n").unwrap();
    let ops = vec![bind(&fixture.text("resolv"), "/etc/resolv.conf")];
    let script = "cat /etc/resolv.conf; ls /var/run/resolve";
    assert_eq!(fixture.says(script, ops), "nameserver 192.0.2.1\nresolv.conf");
}

fn circle(fixture: &Fixture) {
    symlink("b", fixture.path("image/a")).unwrap();
    symlink("a", fixture.path("image/b")).unwrap();
    let error = fixture.failure(&fixture.plan("true", vec![mount("tmpfs", "/a/x")]));
    assert_eq!((error.step, error.errno), (Step::Op(2), Errno::LOOP.raw_os_error()));
}

fn mask(fixture: &Fixture) {
    fs::write(fixture.path("image/etc/secret"), "secret").unwrap();
    fs::create_dir(fixture.path("image/etc/secrets")).unwrap();
    fs::write(fixture.path("image/etc/secrets/one"), "secret").unwrap();
    let masked =
        ["/etc/secret", "/etc/secrets", "/etc/not-there", "/proc/version", "/proc/meminfo"];
    let mut ops = vec![device("/dev/null", 1, 3)];
    ops.extend(masked.into_iter().map(|path| Op::Mask { path: path.into() }));
    let script = "cat /etc/secret /proc/meminfo; ls /etc/secrets; touch /etc/secrets/x 2>/dev/null || echo fixed; \
                  test -c /proc/version && echo null";
    assert_eq!(fixture.says(script, ops), "fixed\nnull");
}

fn false_null(fixture: &Fixture) {
    fs::write(fixture.path("image/dev/null"), "what a container reads instead").unwrap();
    let mask = Op::Mask { path: "/bin/true".into() };
    let error = fixture.failure(&fixture.plan("true", vec![mask.clone()]));
    assert_eq!((error.step, error.errno), (Step::Op(2), Errno::NODEV.raw_os_error()));
    // Nor one with other numbers: this is /dev/zero.
    fs::remove_file(fixture.path("image/dev/null")).unwrap();
    let error = fixture.failure(&fixture.plan("true", vec![device("/dev/null", 1, 5), mask]));
    assert_eq!((error.step, error.errno), (Step::Op(3), Errno::NODEV.raw_os_error()));
}

fn readonly(fixture: &Fixture) {
    let ops = ["/proc/sys", "/etc", "/not-there"].map(|path| Op::Readonly { path: path.into() });
    let script = "(echo x > /proc/sys/kernel/domainname) 2>/dev/null || echo proc; touch /etc/x 2>/dev/null || echo etc; touch /tmp/x";
    assert_eq!(fixture.says(script, ops.into()), "proc\netc");
}

fn root_readonly(fixture: &Fixture) {
    let mut plan =
        fixture.plan("touch /x 2>&- || echo fixed; touch /tmp/x", vec![mount("tmpfs", "/tmp")]);
    plan.ops.push(Op::RootReadonly);
    let ended = fixture.run(&plan);
    assert_eq!((ended.code, ended.out.as_str()), (0, "fixed"));
}

fn nodes(fixture: &Fixture) {
    fs::write(fixture.path("image/bin/fd"), "").unwrap();
    let ops = vec![
        mount_with("tmpfs", "/dev", &[("mode", "755")]),
        device("/dev/zero", 1, 5),
        Op::Device {
            path: "/dev/net/pipe".into(),
            block: false,
            fifo: true,
            major: 0,
            minor: 0,
            mode: 0o640,
            uid: 5,
            gid: 6,
        },
        Op::Symlink { content: "/proc/self/fd".into(), path: "/dev/fd".into() },
        Op::Symlink { content: "/proc/self/fd".into(), path: "/dev/fd".into() },
    ];
    let script = "head -c 3 /dev/zero | wc -c; stat -c '%F %a' /dev/zero; stat -c '%F %a %u:%g' /dev/net/pipe; readlink /dev/fd";
    assert_eq!(
        fixture.says(script, ops),
        "3\ncharacter special file 666\nfifo 640 5:6\n/proc/self/fd"
    );
    // Something else in that place is an error.
    let other = Op::Symlink { content: "x".into(), path: "/bin/fd".into() };
    let error = fixture.failure(&fixture.plan("true", vec![other]));
    assert_eq!((error.step, error.errno), (Step::Op(2), Errno::EXIST.raw_os_error()));
    let other = device("/bin/fd", 1, 3);
    let error = fixture.failure(&fixture.plan("true", vec![other]));
    assert_eq!((error.step, error.errno), (Step::Op(2), Errno::EXIST.raw_os_error()));
}

fn settings(fixture: &Fixture) {
    let host = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let other = if host.trim() == "1" { "0" } else { "1" };
    let ops = vec![
        Op::Sysctl { name: "net.ipv4.ip_forward".into(), value: other.into() },
        Op::Sysctl { name: "kernel/shm_rmid_forced".into(), value: "1".into() },
        Op::Hostname("inside".into()),
        Op::Domainname("example".into()),
    ];
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced; hostname; cat /proc/sys/kernel/domainname";
    assert_eq!(fixture.says(script, ops), format!("{other}\n1\ninside\nexample"));
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), host);
    for (name, errno) in [("net.ipv4.no_such", Errno::NOENT), ("net/../../../tmp/x", Errno::XDEV)] {
        let op = Op::Sysctl { name: name.into(), value: "1".into() };
        let error = fixture.failure(&fixture.plan("true", vec![op]));
        assert_eq!((error.step, error.errno), (Step::Op(2), errno.raw_os_error()), "{name}");
    }
}

fn host_is_gone(fixture: &Fixture) {
    let dir = fixture.dir.path().display();
    let script = format!(
        "test -e {dir} && echo seen; test -e /proc/1/root{dir} && echo seen; ls -d /..{dir} 2>/dev/null; \
         while read -r _ _ _ _ at _; do echo $at; done < /proc/self/mountinfo"
    );
    assert_eq!(fixture.says(&script, Vec::new()), "/\n/proc");
    let inode = fs::metadata("/").unwrap().ino();
    assert_ne!(
        fixture.says("stat -c %d:%i /", Vec::new()),
        format!("{}:{inode}", fs::metadata("/").unwrap().dev())
    );
    // A plan that would change the host's own mounts is refused.
    let mut plan = fixture.plan("true", Vec::new());
    plan.namespaces.mount = Namespace::Inherit;
    assert_eq!(fixture.failure(&plan).step, Step::Op(0));
    let slot = bind_of(Source::Slot(3), "/v");
    let error = fixture.failure(&fixture.plan("true", vec![slot]));
    assert_eq!((error.step, error.errno), (Step::Op(2), Errno::BADF.raw_os_error()));
}

fn cgroups(fixture: &Fixture) {
    let op = Op::Cgroups {
        target: "/sys/fs/cgroup".into(),
        attrs: Attrs { rdonly: true, nosuid: true, nodev: true, noexec: true, ..Attrs::default() },
    };
    let v2 = fixture.host.hierarchies().is_empty();
    let at = if v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let script = format!(
        "sort -n {at}/cgroup.procs | head -n 1; mkdir {at}/x 2>/dev/null || echo fixed; \
         touch /sys/fs/cgroup/x 2>/dev/null || echo fixed; cut -d: -f3 /proc/self/cgroup | sort -u"
    );
    assert_eq!(fixture.says(&script, vec![op]), "1\nfixed\nfixed\n/");
}
