// SPDX-License-Identifier: Apache-2.0
//! Requests that look like a kubelet's, with something odd in them, for every method of both services. They are made
//! from the interface's own description, so a method or field that is added is tried without a change here.
//!
//! Nothing that is made here may harm the host: volumes come from the test's own directory or from where
//! nothing is, settings of the kernel are those of network namespaces.

use super::odd;
use hull_proto::cri as api;
use hull_tests::cri::{idle, image, mount};
use hull_tests::random::Random;
use hull_tests::{Cri, ExpectExt as _};
use prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MethodDescriptor,
    ReflectMessage as _, Value,
};
use std::path::PathBuf;

/// How deep a change may be in messages of messages.
const DEPTH_MAX: usize = 6;

/// Pods, containers and images of the node, to be named by requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    pub(super) pods: Vec<String>,
    pub(super) containers: Vec<String>,
    pub(super) image: String,
    pub(super) image_id: String,
    /// On the host, for volumes.
    pub(super) host_dir: PathBuf,
}

/// Builds random requests.
pub(super) struct Requests {
    methods: Vec<MethodDescriptor>,
    cri: Cri,
}

impl Requests {
    pub(super) fn new(cri: Cri) -> Self {
        let pool = DescriptorPool::decode(hull_proto::INTERFACE).or_fail("read the interface");
        let mut methods = Vec::new();
        for service in ["runtime.v1.RuntimeService", "runtime.v1.ImageService"] {
            let service = pool.get_service_by_name(service).or_fail("find a service");
            methods.extend(service.methods());
        }
        Self { methods, cri }
    }

    /// The request that `random` decides.
    pub(super) fn make(
        &self,
        random: &mut Random,
        objects: &Objects,
    ) -> (MethodDescriptor, DynamicMessage) {
        // Those that make something are tried more often: most can go wrong there.
        let makers = ["RunPodSandbox", "CreateContainer", "UpdateContainerResources"];
        let method = if random.once_in(3) {
            let name = *random.pick(&makers);
            self.methods.iter().find(|method| method.name() == name).or_fail("find a method")
        } else {
            random.pick(&self.methods)
        };
        let mut request = self.usual(method, random, objects);
        let mut change = Change { random, objects };
        for _ in 0..change.random.below(4) {
            change.message(&mut request, DEPTH_MAX);
        }
        (method.clone(), request)
    }

    /// The request as a kubelet would send it.
    fn usual(
        &self,
        method: &MethodDescriptor,
        random: &mut Random,
        objects: &Objects,
    ) -> DynamicMessage {
        let pod = chosen(random, &objects.pods);
        let container = chosen(random, &objects.containers);
        let spec = Some(image(&objects.image));
        let words = || vec!["echo".to_owned(), "here".to_owned()];
        let bytes = match method.name() {
            "RunPodSandbox" => api::RunPodSandboxRequest {
                config: Some(self.pod(random)),
                runtime_handler: String::new(),
            }
            .encode_to_vec(),
            "CreateContainer" => api::CreateContainerRequest {
                pod_sandbox_id: pod,
                config: Some(container_config(random, objects)),
                sandbox_config: Some(self.pod(random)),
            }
            .encode_to_vec(),
            "UpdateContainerResources" => api::UpdateContainerResourcesRequest {
                container_id: container,
                linux: Some(limits()),
                ..Default::default()
            }
            .encode_to_vec(),
            "ExecSync" => {
                api::ExecSyncRequest { container_id: container, cmd: words(), timeout: 2 }
                    .encode_to_vec()
            }
            "Exec" => api::ExecRequest {
                container_id: container,
                cmd: words(),
                stdout: true,
                ..Default::default()
            }
            .encode_to_vec(),
            "PullImage" => {
                api::PullImageRequest { image: spec, ..Default::default() }.encode_to_vec()
            }
            "RemoveImage" => api::RemoveImageRequest { image: spec }.encode_to_vec(),
            "ImageStatus" => api::ImageStatusRequest { image: spec, verbose: true }.encode_to_vec(),
            _ => return named(method, random, objects),
        };
        DynamicMessage::decode(method.input(), bytes.as_slice()).or_fail("describe a request")
    }

    fn pod(&self, random: &mut Random) -> api::PodSandboxConfig {
        let mut config = self.cri.pod_config(&format!("fuzz-{}", random.below(8)));
        config.labels.insert("app".into(), "fuzz".into());
        config.dns_config =
            Some(api::DnsConfig { servers: vec!["192.0.2.1".into()], ..Default::default() });
        config
    }
}

/// The empty request, with ids of what is there.
fn named(method: &MethodDescriptor, random: &mut Random, objects: &Objects) -> DynamicMessage {
    let mut request = DynamicMessage::new(method.input());
    for field in method.input().fields() {
        let ids = match field.name() {
            "pod_sandbox_id" => &objects.pods,
            "container_id" => &objects.containers,
            _ => continue,
        };
        request.set_field(&field, Value::String(chosen(random, ids)));
    }
    request
}

fn chosen(random: &mut Random, of: &[String]) -> String {
    if of.is_empty() { String::new() } else { random.pick(of).clone() }
}

fn container_config(random: &mut Random, objects: &Objects) -> api::ContainerConfig {
    let mut config = idle(&format!("fuzz-{}", random.below(8)), &objects.image);
    config.mounts = vec![mount(&objects.host_dir, "/data")];
    config.envs = vec![api::KeyValue { key: "A".into(), value: b"b".to_vec() }];
    config.linux.get_or_insert_default().resources = Some(limits());
    config
}

fn limits() -> api::LinuxContainerResources {
    api::LinuxContainerResources {
        cpu_shares: 102,
        memory_limit_in_bytes: 96 << 20,
        oom_score_adj: 900,
        ..Default::default()
    }
}

/// One change of a request.
struct Change<'a> {
    random: &'a mut Random,
    objects: &'a Objects,
}

impl Change<'_> {
    fn message(&mut self, message: &mut DynamicMessage, depth: usize) {
        let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
        if fields.is_empty() {
            return;
        }
        // Mostly what is there: what is missing is often of no use with what is missing beside it.
        let there: Vec<FieldDescriptor> =
            fields.iter().filter(|field| message.has_field(field)).cloned().collect();
        let field = if there.is_empty() || self.random.once_in(3) { &fields } else { &there };
        let field = self.random.pick(field).clone();
        if self.random.once_in(8) {
            message.clear_field(&field);
            return;
        }
        let mut value = message.get_field(&field).into_owned();
        self.value(&mut value, &field, depth);
        message.set_field(&field, value);
    }

    fn value(&mut self, value: &mut Value, field: &FieldDescriptor, depth: usize) {
        match value {
            Value::List(list) => self.list(list, field, depth),
            Value::Map(map) => {
                let odd = self.random.once_in(2);
                let key = if odd { odd::text(self.random) } else { self.text(field.name()) };
                let entry = field.kind().as_message().map(|entry| entry.map_entry_value_field());
                let Some(of) = entry else { return };
                let mut of_key = Value::default_value_for_field(&of);
                self.value(&mut of_key, &of, depth);
                map.insert(MapKey::String(key), of_key);
            }
            Value::Message(inner) if depth > 0 && !self.random.once_in(8) => {
                self.message(inner, depth - 1);
            }
            Value::Bool(_)
            | Value::I32(_)
            | Value::I64(_)
            | Value::U32(_)
            | Value::U64(_)
            | Value::F32(_)
            | Value::F64(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::EnumNumber(_)
            | Value::Message(_) => *value = self.odd(field),
        }
    }

    fn list(&mut self, list: &mut Vec<Value>, field: &FieldDescriptor, depth: usize) {
        match self.random.below(6) {
            0 => list.clear(),
            1 if !list.is_empty() => {
                let times = *self.random.pick(&[2, 3, 40, 400]);
                let repeated: Vec<Value> =
                    std::iter::repeat_n(list.clone(), times).flatten().take(2_000).collect();
                *list = repeated;
            }
            2 | 3 if !list.is_empty() => {
                let at = self.random.below(list.len());
                let mut element = list[at].clone();
                self.element(&mut element, field, depth);
                list[at] = element;
            }
            _ => {
                let mut element = Value::default_value(&field.kind());
                self.element(&mut element, field, depth);
                list.push(element);
            }
        }
    }

    fn element(&mut self, element: &mut Value, field: &FieldDescriptor, depth: usize) {
        if let Value::Message(inner) = element
            && depth > 0
        {
            self.message(inner, depth - 1);
        } else {
            *element = self.odd(field);
        }
    }

    /// A value that the field can hold and hardly anybody sends.
    fn odd(&mut self, field: &FieldDescriptor) -> Value {
        let number = odd::number(self.random);
        match field.kind() {
            Kind::Message(of) => Value::Message(DynamicMessage::new(of)),
            Kind::String => Value::String(self.text(field.name())),
            Kind::Bytes => Value::Bytes(odd::text(self.random).into_bytes().into()),
            Kind::Bool => Value::Bool(self.random.once_in(2)),
            Kind::Double => Value::F64(f64::NAN),
            Kind::Float => Value::F32(f32::NAN),
            Kind::Enum(of) => {
                let known: Vec<i32> = of.values().map(|value| value.number()).collect();
                let odd = self.random.once_in(4);
                let number = if odd { clamped(number) } else { *self.random.pick(&known) };
                Value::EnumNumber(number)
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(clamped(number)),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                Value::I64(if field.name() == "timeout" { self.seconds() } else { number })
            }
            Kind::Uint32 | Kind::Fixed32 => {
                Value::U32(u32::try_from(number.unsigned_abs()).unwrap_or(u32::MAX))
            }
            Kind::Uint64 | Kind::Fixed64 => Value::U64(number.unsigned_abs()),
        }
    }

    /// Limits of time are short, or have no end: then the caller leaves.
    fn seconds(&mut self) -> i64 {
        if self.random.once_in(20) {
            return i64::MAX;
        }
        *self.random.pick(&[i64::MIN, -1, 0, 1])
    }

    fn text(&mut self, field: &str) -> String {
        let objects = self.objects;
        let own = objects.host_dir.display().to_string();
        match field {
            // Only what is the test's own, or nowhere.
            "host_path" => {
                let paths =
                    [&own, "/proc/nowhere-of-hull", "", "relative", "/nul\0", "/proc/nowhere\n/x"];
                (*self.random.pick(&paths)).to_owned()
            }
            "sysctls" => "net.ipv4.ip_unprivileged_port_start".to_owned(),
            "log_directory" | "location" | "output_path" | "checkpoint_path" => {
                format!("{own}/{}", odd::text(self.random))
            }
            _ => match self.random.below(8) {
                0 => chosen(self.random, &objects.pods),
                1 => chosen(self.random, &objects.containers),
                2 => chosen(self.random, &objects.pods).chars().take(3).collect(),
                3 => objects.image.clone(),
                4 => objects.image_id.clone(),
                _ => odd::text(self.random),
            },
        }
    }
}

fn clamped(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX })
}

/// Whether a method answers with a stream.
pub(super) fn is_streaming(method: &MethodDescriptor) -> bool {
    method.is_server_streaming()
}

/// The seconds that the request itself gives the call, if it has such a field.
pub(super) fn own_seconds(request: &DynamicMessage) -> Option<i64> {
    let field = request.descriptor().get_field_by_name("timeout")?;
    if field.cardinality() == Cardinality::Repeated {
        return None;
    }
    request.get_field(&field).as_i64()
}

/// A value as text, with long ones cut.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Message(message) => {
            let fields = message
                .fields()
                .map(|(field, value)| format!("{}: {}", field.name(), shown(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::List(list) => {
            let some: Vec<String> = list.iter().take(4).map(shown).collect();
            format!("{} of [{}]", list.len(), some.join(", "))
        }
        Value::Map(map) => {
            let some = map
                .iter()
                .map(|(key, value)| format!("{:.80}: {}", format!("{key:?}"), shown(value)));
            format!("map {{{}}}", some.collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => format!("{:.80}({})", format!("{text:?}"), text.len()),
        other @ (Value::Bool(_)
        | Value::I32(_)
        | Value::I64(_)
        | Value::U32(_)
        | Value::U64(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::Bytes(_)
        | Value::EnumNumber(_)) => format!("{other:?}").chars().take(80).collect(),
    }
}
