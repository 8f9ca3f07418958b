// SPDX-License-Identifier: Apache-2.0
//! Adds one plugin's adjustments of a new container to those of earlier plugins, and applies them to the
//! container that later plugins see.

use super::owners::{Claims, removed_key};
use super::resources::{overlay, overlay_claimed};
use crate::Error;
use hull_proto::nri::{
    Container, ContainerAdjustment, Field, Hooks, KeyValue, LinuxContainer,
    LinuxContainerAdjustment, LinuxDevice, LinuxNamespace, LinuxRdt, Mount, PosixRlimit,
};
use std::collections::{BTreeMap, BTreeSet};

type Result<T = ()> = std::result::Result<T, Error>;

/// Adds `new` to `all`, and applies it to `current`. An error if another plugin has set one of the fields.
pub(super) fn apply(
    current: &mut Container,
    all: &mut ContainerAdjustment,
    new: ContainerAdjustment,
    claims: &mut Claims<'_>,
) -> Result {
    let ContainerAdjustment {
        annotations,
        mounts,
        env: variables,
        hooks,
        linux,
        rlimits,
        cdi_devices,
        args,
    } = new;
    let changed = map(&mut all.annotations, annotations, Field::Annotations, claims)?;
    changed.apply_to_map(&mut current.annotations);
    let changed = list(&mut all.mounts, mounts, mount_key, Field::Mounts, claims)?;
    changed.apply_to_list(&mut current.mounts, mount_key);
    env(current, all, variables, claims)?;
    set_args(current, all, args, claims)?;
    if let Some(hooks) = hooks {
        add_hooks(all.hooks.get_or_insert_default(), &hooks);
        add_hooks(current.hooks.get_or_insert_default(), &hooks);
        claims.share(Field::OciHooks);
    }
    for limit in rlimits {
        claims.entry(Field::Rlimits, &limit.r#type)?;
        replace(&mut current.rlimits, &limit, |of| &of.r#type);
        replace(&mut all.rlimits, &limit, |of| &of.r#type);
    }
    for device in cdi_devices {
        // One plugin manages devices of a kind: two that name the same device are a mistake.
        claims.entry(Field::CdiDevices, &device.name)?;
        all.cdi_devices.push(device);
    }
    if let Some(new) = linux {
        let all = all.linux.get_or_insert_default();
        let current = current.linux.get_or_insert_default();
        apply_linux(current, all, new, claims)?;
    }
    Ok(())
}

fn apply_linux(
    current: &mut LinuxContainer,
    all: &mut LinuxContainerAdjustment,
    new: LinuxContainerAdjustment,
    claims: &mut Claims<'_>,
) -> Result {
    let changed = list(&mut all.devices, new.devices, device_key, Field::Devices, claims)?;
    changed.apply_to_list(&mut current.devices, device_key);
    if let Some(new) = &new.resources {
        overlay_claimed(all.resources.get_or_insert_default(), new, claims)?;
        overlay(current.resources.get_or_insert_default(), new);
    }
    if !new.cgroups_path.is_empty() {
        claims.whole(Field::CgroupsPath)?;
        current.cgroups_path.clone_from(&new.cgroups_path);
        all.cgroups_path = new.cgroups_path;
    }
    /// Copies fields that are set as a whole.
    macro_rules! whole {
        ($($name:ident: $field:ident),*) => {
            $(if let Some(value) = new.$name {
                claims.whole(Field::$field)?;
                current.$name = Some(value.clone());
                all.$name = Some(value);
            })*
        };
    }
    whole!(oom_score_adj: OomScoreAdj, io_priority: IoPriority, seccomp_policy: SeccompPolicy, scheduler: LinuxSched);
    if let Some(policy) = new.memory_policy {
        claims.whole(Field::MemoryPolicy)?;
        all.memory_policy = Some(policy);
    }
    for namespace in new.namespaces {
        apply_namespace(current, all, namespace, claims)?;
    }
    let changed = map(&mut all.sysctl, new.sysctl, Field::Sysctl, claims)?;
    changed.apply_to_map(&mut current.sysctl);
    let changed = map(&mut all.net_devices, new.net_devices, Field::LinuxNetDevices, claims)?;
    changed.apply_to_map(&mut current.net_devices);
    new.rdt.map_or(Ok(()), |rdt| apply_rdt(all.rdt.get_or_insert_default(), rdt, claims))
}

/// A namespace has an owner even after it is removed: no other plugin may add it again.
fn apply_namespace(
    current: &mut LinuxContainer,
    all: &mut LinuxContainerAdjustment,
    namespace: LinuxNamespace,
    claims: &mut Claims<'_>,
) -> Result {
    let gone = removed_key(&namespace.r#type);
    let kind = gone.unwrap_or(&namespace.r#type);
    claims.entry(Field::Namespace, kind)?;
    current.namespaces.retain(|of| of.r#type != kind);
    if gone.is_none() {
        current.namespaces.push(namespace.clone());
    }
    all.namespaces.push(namespace);
    Ok(())
}

fn apply_rdt(all: &mut LinuxRdt, new: LinuxRdt, claims: &mut Claims<'_>) -> Result {
    let fields = [Field::RdtClosId, Field::RdtSchemata, Field::RdtEnableMonitoring];
    if new.remove {
        fields.into_iter().for_each(|field| claims.clear_whole(field));
        *all = LinuxRdt { remove: true, ..Default::default() };
    }
    let sets = [new.clos_id.is_some(), new.schemata.is_some(), new.enable_monitoring.is_some()];
    for (field, _) in fields.into_iter().zip(sets).filter(|(_, set)| *set) {
        claims.whole(field)?;
        all.remove = false;
    }
    all.clos_id = new.clos_id.or(all.clos_id.take());
    all.schemata = new.schemata.or(all.schemata.take());
    all.enable_monitoring = new.enable_monitoring.or(all.enable_monitoring.take());
    Ok(())
}

fn env(
    current: &mut Container,
    all: &mut ContainerAdjustment,
    new: Vec<KeyValue>,
    claims: &mut Claims<'_>,
) -> Result {
    let changed = list(&mut all.env, new, |of| &of.key, Field::Env, claims)?;
    let name = |text: &String| text.split('=').next().unwrap_or_default().to_owned();
    current.env.retain(|text| !changed.replaces(&name(text)));
    current.env.extend(changed.added.iter().map(|(key, of)| format!("{key}={}", of.value)));
    Ok(())
}

/// An empty first argument means that the arguments of another plugin are replaced.
fn set_args(
    current: &mut Container,
    all: &mut ContainerAdjustment,
    mut new: Vec<String>,
    claims: &mut Claims<'_>,
) -> Result {
    if new.is_empty() {
        return Ok(());
    }
    if new[0].is_empty() {
        claims.clear_whole(Field::Args);
        new.remove(0);
    }
    claims.whole(Field::Args)?;
    if !new.is_empty() {
        current.args.clone_from(&new);
    }
    all.args = new;
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

/// One plugin's changes of one field.
struct Changed<T> {
    added: Vec<(String, T)>,
    removed: BTreeSet<String>,
}

impl<T: Clone> Changed<T> {
    fn replaces(&self, key: &str) -> bool {
        self.removed.contains(key) || self.added.iter().any(|(added, _)| added == key)
    }

    fn apply_to_list(self, current: &mut Vec<T>, key: fn(&T) -> &String) {
        current.retain(|of| !self.replaces(key(of)));
        current.extend(self.added.into_iter().map(|(_, of)| of));
    }

    fn apply_to_map(self, current: &mut BTreeMap<String, T>) {
        current.retain(|key, _| !self.replaces(key));
        current.extend(self.added);
    }
}

/// Changes a field whose entries are in a list. A removed entry stays there as `-key`, unless it is set
/// again.
fn list<T: Clone>(
    all: &mut Vec<T>,
    new: Vec<T>,
    key: fn(&T) -> &String,
    field: Field,
    claims: &mut Claims<'_>,
) -> Result<Changed<T>> {
    let (gone, added): (Vec<T>, Vec<T>) =
        new.into_iter().partition(|of| removed_key(key(of)).is_some());
    let names = |of: &T| removed_key(key(of)).unwrap_or_default().to_owned();
    let mut changed = Changed {
        removed: gone.iter().map(names).collect(),
        added: Vec::with_capacity(added.len()),
    };
    for name in &changed.removed {
        claims.release(field, name);
    }
    all.retain(|of| !changed.removed.contains(removed_key(key(of)).unwrap_or(key(of))));
    for new in added {
        claims.entry(field, key(&new))?;
        // If one plugin sets an entry twice, the later value counts.
        all.retain(|of| key(of) != key(&new));
        all.push(new.clone());
        changed.added.push((key(&new).clone(), new));
    }
    let again = |of: &T| {
        changed.added.iter().any(|(added, _)| Some(added.as_str()) == removed_key(key(of)))
    };
    all.extend(gone.into_iter().filter(|of| !again(of)));
    Ok(changed)
}

/// Changes a field whose entries are in a map. A removed entry stays there as `-key`, unless it is set again.
fn map<T: Clone>(
    all: &mut BTreeMap<String, T>,
    new: BTreeMap<String, T>,
    field: Field,
    claims: &mut Claims<'_>,
) -> Result<Changed<T>> {
    let (gone, added): (Vec<_>, Vec<_>) =
        new.into_iter().partition(|(key, _)| removed_key(key).is_some());
    let mut changed = Changed { removed: BTreeSet::new(), added: Vec::with_capacity(added.len()) };
    for (marked, value) in gone {
        let name = removed_key(&marked).unwrap_or_default().to_owned();
        claims.release(field, &name);
        all.remove(&name);
        all.insert(marked, value);
        changed.removed.insert(name);
    }
    for (key, value) in added {
        claims.entry(field, &key)?;
        all.remove(&format!("-{key}"));
        all.insert(key.clone(), value.clone());
        changed.added.push((key, value));
    }
    Ok(changed)
}
