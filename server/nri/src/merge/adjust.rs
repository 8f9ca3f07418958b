// SPDX-License-Identifier: Apache-2.0
//! What one plugin asks for in a new container, added to what those before it asked for, and to the
//! container as those after it see it.

use super::owners::{Claims, removed};
use super::resources::{claimed, overlay};
use crate::Error;
use hull_proto::nri::{
    Container, ContainerAdjustment, Field, Hooks, KeyValue, LinuxContainer,
    LinuxContainerAdjustment, LinuxDevice, LinuxNamespace, LinuxRdt, Mount, PosixRlimit,
};
use std::collections::{BTreeMap, BTreeSet};

type Taken<T = ()> = Result<T, Error>;

/// Takes all of it.
pub(super) fn take(
    seen: &mut Container,
    all: &mut ContainerAdjustment,
    asked: ContainerAdjustment,
    claims: &mut Claims<'_>,
) -> Taken {
    let ContainerAdjustment {
        annotations,
        mounts,
        env: variables,
        hooks,
        linux,
        rlimits,
        cdi_devices,
        args,
    } = asked;
    let changed = map(&mut all.annotations, annotations, Field::Annotations, claims)?;
    changed.show_in_map(&mut seen.annotations);
    let changed = list(&mut all.mounts, mounts, mount_key, Field::Mounts, claims)?;
    changed.show_in_list(&mut seen.mounts, mount_key);
    env(seen, all, variables, claims)?;
    set_args(seen, all, args, claims)?;
    if let Some(hooks) = hooks {
        add_hooks(all.hooks.get_or_insert_default(), &hooks);
        add_hooks(seen.hooks.get_or_insert_default(), &hooks);
        claims.share(Field::OciHooks);
    }
    for limit in rlimits {
        claims.entry(Field::Rlimits, &limit.r#type)?;
        replace(&mut seen.rlimits, &limit, |of| &of.r#type);
        replace(&mut all.rlimits, &limit, |of| &of.r#type);
    }
    for device in cdi_devices {
        // Who names a device of this kind is its one manager: twice is a mistake.
        claims.entry(Field::CdiDevices, &device.name)?;
        all.cdi_devices.push(device);
    }
    if let Some(asked) = linux {
        let all = all.linux.get_or_insert_default();
        let seen = seen.linux.get_or_insert_default();
        take_linux(seen, all, asked, claims)?;
    }
    Ok(())
}

fn take_linux(
    seen: &mut LinuxContainer,
    all: &mut LinuxContainerAdjustment,
    asked: LinuxContainerAdjustment,
    claims: &mut Claims<'_>,
) -> Taken {
    let changed = list(&mut all.devices, asked.devices, device_key, Field::Devices, claims)?;
    changed.show_in_list(&mut seen.devices, device_key);
    if let Some(new) = &asked.resources {
        claimed(all.resources.get_or_insert_default(), new, claims)?;
        overlay(seen.resources.get_or_insert_default(), new);
    }
    if !asked.cgroups_path.is_empty() {
        claims.whole(Field::CgroupsPath)?;
        seen.cgroups_path.clone_from(&asked.cgroups_path);
        all.cgroups_path = asked.cgroups_path;
    }
    /// Values that are set as a whole, if at all.
    macro_rules! whole {
        ($($name:ident: $field:ident),*) => {
            $(if let Some(value) = asked.$name {
                claims.whole(Field::$field)?;
                seen.$name = Some(value.clone());
                all.$name = Some(value);
            })*
        };
    }
    whole!(oom_score_adj: OomScoreAdj, io_priority: IoPriority, seccomp_policy: SeccompPolicy, scheduler: LinuxSched);
    if let Some(policy) = asked.memory_policy {
        claims.whole(Field::MemoryPolicy)?;
        all.memory_policy = Some(policy);
    }
    for namespace in asked.namespaces {
        take_namespace(seen, all, namespace, claims)?;
    }
    let changed = map(&mut all.sysctl, asked.sysctl, Field::Sysctl, claims)?;
    changed.show_in_map(&mut seen.sysctl);
    let changed = map(&mut all.net_devices, asked.net_devices, Field::LinuxNetDevices, claims)?;
    changed.show_in_map(&mut seen.net_devices);
    asked.rdt.map_or(Ok(()), |rdt| take_rdt(all.rdt.get_or_insert_default(), rdt, claims))
}

/// A namespace has an owner even when it is taken away: nobody else may bring it back.
fn take_namespace(
    seen: &mut LinuxContainer,
    all: &mut LinuxContainerAdjustment,
    namespace: LinuxNamespace,
    claims: &mut Claims<'_>,
) -> Taken {
    let gone = removed(&namespace.r#type);
    let kind = gone.unwrap_or(&namespace.r#type);
    claims.entry(Field::Namespace, kind)?;
    seen.namespaces.retain(|of| of.r#type != kind);
    if gone.is_none() {
        seen.namespaces.push(namespace.clone());
    }
    all.namespaces.push(namespace);
    Ok(())
}

fn take_rdt(all: &mut LinuxRdt, asked: LinuxRdt, claims: &mut Claims<'_>) -> Taken {
    let fields = [Field::RdtClosId, Field::RdtSchemata, Field::RdtEnableMonitoring];
    if asked.remove {
        fields.into_iter().for_each(|field| claims.clear_whole(field));
        *all = LinuxRdt { remove: true, ..Default::default() };
    }
    let sets =
        [asked.clos_id.is_some(), asked.schemata.is_some(), asked.enable_monitoring.is_some()];
    for (field, _) in fields.into_iter().zip(sets).filter(|(_, set)| *set) {
        claims.whole(field)?;
        all.remove = false;
    }
    all.clos_id = asked.clos_id.or(all.clos_id.take());
    all.schemata = asked.schemata.or(all.schemata.take());
    all.enable_monitoring = asked.enable_monitoring.or(all.enable_monitoring.take());
    Ok(())
}

fn env(
    seen: &mut Container,
    all: &mut ContainerAdjustment,
    asked: Vec<KeyValue>,
    claims: &mut Claims<'_>,
) -> Taken {
    let changed = list(&mut all.env, asked, |of| &of.key, Field::Env, claims)?;
    let name = |text: &String| text.split('=').next().unwrap_or_default().to_owned();
    seen.env.retain(|text| !changed.replaces(&name(text)));
    seen.env.extend(changed.added.iter().map(|(key, of)| format!("{key}={}", of.value)));
    Ok(())
}

/// An empty first argument says that another plugin's are replaced.
fn set_args(
    seen: &mut Container,
    all: &mut ContainerAdjustment,
    mut asked: Vec<String>,
    claims: &mut Claims<'_>,
) -> Taken {
    if asked.is_empty() {
        return Ok(());
    }
    if asked[0].is_empty() {
        claims.clear_whole(Field::Args);
        asked.remove(0);
    }
    claims.whole(Field::Args)?;
    if !asked.is_empty() {
        seen.args.clone_from(&asked);
    }
    all.args = asked;
    Ok(())
}

fn add_hooks(have: &mut Hooks, new: &Hooks) {
    have.prestart.extend_from_slice(&new.prestart);
    have.create_runtime.extend_from_slice(&new.create_runtime);
    have.create_container.extend_from_slice(&new.create_container);
    have.start_container.extend_from_slice(&new.start_container);
    have.poststart.extend_from_slice(&new.poststart);
    have.poststop.extend_from_slice(&new.poststop);
}

fn replace(limits: &mut Vec<PosixRlimit>, new: &PosixRlimit, key: fn(&PosixRlimit) -> &String) {
    limits.retain(|of| key(of) != key(new));
    limits.push(new.clone());
}

fn mount_key(of: &Mount) -> &String {
    &of.destination
}

fn device_key(of: &LinuxDevice) -> &String {
    &of.path
}

/// What a plugin changed in one field.
struct Changed<T> {
    added: Vec<(String, T)>,
    gone: BTreeSet<String>,
}

impl<T: Clone> Changed<T> {
    fn replaces(&self, key: &str) -> bool {
        self.gone.contains(key) || self.added.iter().any(|(added, _)| added == key)
    }

    fn show_in_list(self, seen: &mut Vec<T>, key: fn(&T) -> &String) {
        seen.retain(|of| !self.replaces(key(of)));
        seen.extend(self.added.into_iter().map(|(_, of)| of));
    }

    fn show_in_map(self, seen: &mut BTreeMap<String, T>) {
        seen.retain(|key, _| !self.replaces(key));
        seen.extend(self.added);
    }
}

/// A field with entries, kept in a list. What is taken away stays there as `-key`, unless it is set
/// again.
fn list<T: Clone>(
    all: &mut Vec<T>,
    asked: Vec<T>,
    key: fn(&T) -> &String,
    field: Field,
    claims: &mut Claims<'_>,
) -> Taken<Changed<T>> {
    let (gone, added): (Vec<T>, Vec<T>) =
        asked.into_iter().partition(|of| removed(key(of)).is_some());
    let names = |of: &T| removed(key(of)).unwrap_or_default().to_owned();
    let mut changed =
        Changed { gone: gone.iter().map(names).collect(), added: Vec::with_capacity(added.len()) };
    for name in &changed.gone {
        claims.release(field, name);
    }
    all.retain(|of| !changed.gone.contains(removed(key(of)).unwrap_or(key(of))));
    for new in added {
        claims.entry(field, key(&new))?;
        // Twice by one plugin: the later one holds.
        all.retain(|of| key(of) != key(&new));
        all.push(new.clone());
        changed.added.push((key(&new).clone(), new));
    }
    let again =
        |of: &T| changed.added.iter().any(|(added, _)| Some(added.as_str()) == removed(key(of)));
    all.extend(gone.into_iter().filter(|of| !again(of)));
    Ok(changed)
}

/// Likewise, kept in a map.
fn map<T: Clone>(
    all: &mut BTreeMap<String, T>,
    asked: BTreeMap<String, T>,
    field: Field,
    claims: &mut Claims<'_>,
) -> Taken<Changed<T>> {
    let (gone, added): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|(key, _)| removed(key).is_some());
    let mut changed = Changed { gone: BTreeSet::new(), added: Vec::with_capacity(added.len()) };
    for (marked, value) in gone {
        let name = removed(&marked).unwrap_or_default().to_owned();
        claims.release(field, &name);
        all.remove(&name);
        all.insert(marked, value);
        changed.gone.insert(name);
    }
    for (key, value) in added {
        claims.entry(field, &key)?;
        all.remove(&format!("-{key}"));
        all.insert(key.clone(), value.clone());
        changed.added.push((key, value));
    }
    Ok(changed)
}
