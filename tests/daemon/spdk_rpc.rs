//! SPDK's `rpc.py`, unmodified, calls every method that it has a command for, and prints what the contract's table says.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Map, Value};

use crate::common::{Daemon, NQN, directory, file};
use crate::contract::table::{self, Family, Method, When};
use crate::spdk_client::{Coprocess, client};

/// Commands before initialization that need arguments. Those that need none are not listed.
const STARTUP: &[&str] = &[
    "accel_assign_opc -o copy -m software",
    "bdev_set_options --no-auto-examine",
    "nvmf_set_max_subsystems -x 64",
    "nvmf_set_config -m 0x1",
    "sock_set_default_impl -i posix",
    "sock_impl_set_options -i posix -r 4096",
    "scheduler_set_options -s 0",
];

/// Commands that need arguments, in an order that works. Those of methods that are not here are left out.
const RUNTIME: &[&str] = &[
    "bdev_malloc_create 1 512 -b m0",
    "bdev_malloc_create 1 512 -b m1",
    "bdev_malloc_create 1 512 -b m2",
    "bdev_malloc_create 1 512 -b m3",
    "bdev_malloc_create 1 512 -b m4",
    "bdev_null_create n0 1 4096",
    "bdev_null_resize n0 2",
    "bdev_uring_create $DIR/0.img u0 512",
    "bdev_uring_rescan u0",
    "bdev_aio_create $DIR/1.img a0 512 --fallocate",
    "bdev_aio_rescan a0",
    "bdev_get_bdevs -b m0 -t 10",
    "bdev_get_iostat --names m0",
    "bdev_reset_iostat -b m0 -m maxmin",
    "bdev_examine -b m0",
    "bdev_nvme_set_hotplug --no-hotplug",
    "bdev_set_qos_limit m0 --rw-ios-per-sec 20000",
    "bdev_set_qd_sampling_period m0 1000",
    "bdev_enable_histogram m0 --histogram",
    "bdev_get_histogram m0",
    "bdev_get_histogram_borders m0 --borders 10,100",
    "bdev_passthru_create -b m1 -p p0",
    "bdev_passthru_delete p0",
    "bdev_error_create m2",
    "bdev_error_inject_error EE_m2 read failure -n 1",
    "bdev_error_resume_pending EE_m2",
    "bdev_error_delete EE_m2",
    "bdev_delay_create -b m3 -d d0 -r 10 -t 20 -w 10 -n 20",
    "bdev_delay_update_latency d0 avg_read 20",
    "bdev_delay_delete d0",
    "bdev_split_create m4 2",
    "bdev_split_delete m4",
    "keyring_file_add_key k0 $DIR/key",
    "keyring_file_remove_key k0",
    "log_set_level NOTICE",
    "log_set_print_level NOTICE",
    "log_set_flag nvmf",
    "log_clear_flag all",
    "log_enable_timestamps --timestamps",
    "framework_get_config bdev",
    "framework_get_config nvmf --with-batches",
    "framework_set_scheduler static",
    "sock_impl_get_options -i uring",
    "thread_set_cpumask -i 1 -m 0x1",
    "trace_enable_tpoint_group bdev",
    "trace_disable_tpoint_group all",
    "trace_set_tpoint_mask bdev 0x3",
    "trace_clear_tpoint_mask bdev 0x1",
    "nvmf_create_transport -t VFIOUSER -q 256 -m 8 --kas 100",
    "nvmf_get_transports --trtype VFIOUSER",
    "nvmf_create_subsystem $NQN -s SN -d MN -m 8 -r",
    "nvmf_create_subsystem $NQN-other --max-discard-size 1024 --max-write-zeroes-size 64",
    "nvmf_subsystem_add_ns $NQN m0 -n 2 -a 1 -i",
    "nvmf_subsystem_set_ns_ana_group $NQN 2 1",
    "nvmf_subsystem_add_listener $NQN -t VFIOUSER -a $DIR/vm -s 0",
    "nvmf_subsystem_listener_set_ana_state $NQN -n non_optimized -t VFIOUSER -a $DIR/vm -s 0",
    "nvmf_subsystem_add_host $NQN nqn.2026-11.io.example:host",
    "nvmf_ns_add_host $NQN 2 nqn.2026-11.io.example:host",
    "nvmf_ns_remove_host $NQN 2 nqn.2026-11.io.example:host",
    "nvmf_subsystem_remove_host $NQN nqn.2026-11.io.example:host",
    "nvmf_subsystem_allow_any_host $NQN --allow-any-host",
    "nvmf_get_subsystems $NQN",
    "nvmf_subsystem_get_controllers $NQN",
    "nvmf_subsystem_get_qpairs $NQN",
    "nvmf_subsystem_get_listeners $NQN",
    "nvmf_subsystem_remove_listener $NQN -t VFIOUSER -a $DIR/vm -s 0",
    "nvmf_subsystem_remove_ns $NQN 2",
    "nvmf_delete_subsystem $NQN",
    "nvmf_discovery_add_referral -t tcp -a 192.0.2.1 -f ipv4 -s 4420",
    "nvmf_discovery_remove_referral -t tcp -a 192.0.2.1 -f ipv4 -s 4420",
    "vhost_create_blk_controller c0 n0 --cpumask 0x1",
    "vhost_get_controllers -n c0",
    "vhost_controller_set_coalescing c0 10 30000",
    "vhost_delete_controller c0",
    "virtio_blk_get_transports --name vhost_user_blk",
    "vfu_tgt_set_base_path $DIR",
    "vfu_virtio_create_blk_endpoint e0 --bdev-name n0 --num-queues 2 --qsize 256 --packed-ring",
    "vfu_virtio_delete_endpoint e0",
    "bdev_malloc_delete m0",
    "bdev_null_delete n0",
    "bdev_uring_delete u0",
    "bdev_aio_delete a0",
    "spdk_kill_instance SIGUSR1",
];

/// Commands that cannot work here, and the code in what they print.
const REFUSED: &[(&str, &str)] = &[("virtio_blk_create_transport vhost_user_blk", "-17")];

struct Trial {
    families: Vec<Family>,
    daemon: Daemon,
    client: Coprocess,
    directory: String,
    called: BTreeSet<String>,
}

impl Trial {
    fn find(&self, name: &str) -> Option<(&Family, &Method)> {
        let mut families = self.families.iter();
        families.find_map(|family| {
            let method = family.methods.iter().find(|method| method.name == name)?;
            Some((family, method))
        })
    }

    /// Runs a line of the client and holds what it prints against the table.
    fn run(&mut self, line: &str) {
        let name = line.split(' ').next().unwrap_or_default().to_owned();
        if self.find(&name).is_none() {
            return;
        }
        let line = line.replace("$DIR", &self.directory).replace("$NQN", NQN);
        let (worked, text) = self.client.run(&line);
        assert!(
            worked,
            "rpc.py {line}: {text}\nthe log:\n{}",
            self.daemon.log()
        );
        let printed = parse(&text);
        let (family, method) = self.find(&name).expect("a row");
        // The client prints lists of names in one line, and nothing where it deems the answer of no interest.
        let forms = match &printed {
            None => {
                self.called.insert(name);
                return;
            }
            Some(Value::String(text)) => {
                let words = text.split_whitespace().collect();
                vec![Value::String(text.clone()), words]
            }
            Some(value) => vec![value.clone()],
        };
        let mut reasons = forms
            .iter()
            .map(|form| method.result.check(form, &family.names));
        let first = reasons.next().expect("one form");
        let outcome = first.or_else(|reason| reasons.next().unwrap_or(Err(reason)));
        if let Err(reason) = outcome {
            panic!("rpc.py {line} prints what is not as the table says: {reason}\n{text}");
        }
        // What needs no arguments can be asked for over the socket too.
        let is_plain = name.contains("_get_") && !line.contains(' ');
        if let Some(printed) = printed.filter(|_| is_plain) {
            let raw = self.daemon.ok(&name, Value::Null);
            assert_eq!(skeleton(&printed), skeleton(&raw), "rpc.py {line}");
        }
        self.called.insert(name);
    }

    /// Runs the commands that were not run yet and need no arguments.
    fn rest(&mut self, commands: &BTreeSet<String>, state: When) {
        let methods = self.families.iter().flat_map(|family| &family.methods);
        let methods = methods.filter(|it| it.state == state && it.fails.is_none());
        let names: Vec<String> = methods.map(|method| method.name.clone()).collect();
        for name in names {
            if commands.contains(&name) && !self.called.contains(&name) {
                let needs = |method: &Method| method.params.iter().any(|param| param.required);
                let (_, method) = self.find(&name).expect("a row");
                assert!(
                    !needs(method),
                    "{name} has no line in tests/daemon/spdk_rpc.rs: add one"
                );
                self.run(&name);
            }
        }
    }
}

/// What the client printed: JSON, or a text without quotes.
fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    Some(text.parse().unwrap_or_else(|_| Value::from(text)))
}

/// A value without what changes from call to call.
fn skeleton(value: &Value) -> Value {
    match value {
        Value::Number(_) => 0.into(),
        Value::Array(elements) => elements.iter().map(skeleton).collect(),
        Value::Object(members) => {
            let members = members.iter();
            let members = members.map(|(name, value)| (name.clone(), skeleton(value)));
            members.collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// The client's commands.
fn commands(client: &std::path::Path) -> BTreeSet<String> {
    let help = Command::new("python3").arg(client).arg("-h").output();
    let help = help.expect("python3 runs").stdout;
    let text = String::from_utf8_lossy(&help);
    let is_part = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
    let words = text.split(|it| !is_part(it));
    words.map(str::to_owned).collect()
}

#[test]
fn spdks_client_calls_every_method() {
    let Some(client) = client() else {
        return;
    };
    let commands = commands(&client);
    let place = directory();
    let sockets = place.path().to_str().expect("a path").to_owned();
    std::fs::create_dir(place.path().join("vm")).expect("a directory");
    for name in ["0.img", "1.img"] {
        file(place.path(), name, 1 << 20);
    }
    let key = file(place.path(), "key", 64);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(key, mode).expect("a mode");
    let daemon = Daemon::start(
        place.path(),
        &["--wait-for-rpc", "-S", &sockets, "-m", "0x1"],
    );
    let mut trial = Trial {
        families: table::read(),
        client: Coprocess::start(&client, daemon.socket()),
        daemon,
        directory: sockets,
        called: BTreeSet::new(),
    };
    // The one method whose answer must come from elsewhere: it waits.
    trial.called.insert("framework_wait_init".to_owned());
    trial.called.insert("framework_start_init".to_owned());
    STARTUP.iter().for_each(|line| trial.run(line));
    trial.rest(&commands, When::Startup);
    trial.run("framework_start_init");
    trial.run("framework_wait_init");
    RUNTIME.iter().for_each(|line| trial.run(line));
    trial.rest(&commands, When::Runtime);
    trial.rest(&commands, When::Always);
    for (line, code) in REFUSED {
        let (worked, text) = trial.client.run(line);
        // What belongs before initialization is refused for that.
        let is_late = text.contains("framework_start_init");
        assert!(
            !worked && (text.contains(code) || is_late),
            "{line}: {text}"
        );
    }
    let Trial {
        client,
        daemon,
        called,
        ..
    } = trial;
    println!("rpc.py has called {} methods", called.len());
    drop(client);
    daemon.stop();
}
