// SPDX-License-Identifier: Apache-2.0
//! Kernel settings that belong to a namespace. `Documentation/admin-guide/sysctl/`.

use crate::Error;
use hull_init::plan::{Namespace, Namespaces};

/// The namespace that a setting belongs to.
enum Owner {
    Ipc,
    Net,
    Uts,
    User,
    Host,
}

fn owner(dotted: &str) -> Owner {
    match dotted {
        "kernel.sem" => Owner::Ipc,
        "kernel.domainname" => Owner::Uts,
        name if name.starts_with("kernel.msg") || name.starts_with("kernel.shm") => Owner::Ipc,
        name if name.starts_with("fs.mqueue.") => Owner::Ipc,
        name if name.starts_with("net.") => Owner::Net,
        // How many namespaces, and other things, its users may have.
        name if name.starts_with("user.") => Owner::User,
        _ => Owner::Host,
    }
}

/// Refuses a setting that is the host's.
pub fn check_sysctl(name: &str, namespaces: &Namespaces) -> Result<(), Error> {
    let dotted = name.replace('/', ".");
    let refuse =
        |because| Err(Error::HostSysctl { name: name.chars().take(200).collect(), because });
    if name.split(['/', '.']).any(str::is_empty) {
        return refuse("");
    }
    if dotted == "kernel.hostname" && namespaces.uts != Namespace::Inherit {
        let why = "the field `hostname` sets it";
        return Err(Error::Bad { field: "linux.sysctl", value: dotted, why });
    }
    match owner(&dotted) {
        Owner::Ipc if namespaces.ipc != Namespace::Inherit => Ok(()),
        Owner::Net if namespaces.net != Namespace::Inherit => Ok(()),
        Owner::Uts if namespaces.uts != Namespace::Inherit => Ok(()),
        Owner::User if namespaces.user != Namespace::Inherit => Ok(()),
        Owner::Ipc => refuse(" here: the pod uses the host's IPC namespace"),
        Owner::Net => {
            refuse(" here: the pod is on the host network, whose settings are the node's")
        }
        Owner::Uts => refuse(" here: the pod uses the host's UTS namespace"),
        Owner::User => refuse(" here: the pod has no user namespace of its own"),
        Owner::Host => refuse(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_taken_with_the_namespace_that_it_belongs_to() {
        let new = || Namespace::New;
        let all = Namespaces {
            ipc: new(),
            net: Namespace::Join("/x".into()),
            uts: new(),
            user: new(),
            ..Namespaces::default()
        };
        for name in [
            "kernel.shmmax",
            "kernel.msg_next_id",
            "kernel.sem",
            "fs.mqueue.msg_max",
            "net/ipv4/conf/eth0.100/rp_filter",
            "net.ipv4.ip_forward",
            "kernel.domainname",
            "user.max_net_namespaces",
        ] {
            check_sysctl(name, &all).unwrap();
            let refused = check_sysctl(name, &Namespaces::default()).unwrap_err();
            assert!(matches!(refused, Error::HostSysctl { because, .. } if !because.is_empty()));
        }
        for name in ["vm.swappiness", "kernel.panic", "kernel..sem", "net/", "users.x"] {
            let refused = check_sysctl(name, &all).unwrap_err();
            assert!(matches!(refused, Error::HostSysctl { because: "", .. }), "{name}: {refused}");
        }
        let host_name = check_sysctl("kernel.hostname", &all).unwrap_err();
        assert!(host_name.to_string().contains("`hostname`"), "{host_name}");
    }
}
