use clap::Parser;

use super::{ServeArgs, parse_size};

#[derive(Parser)]
struct Wrapper {
    #[command(flatten)]
    args: ServeArgs,
}

fn parse(line: &str) -> Result<ServeArgs, clap::Error> {
    let words = std::iter::once("serve").chain(line.split_whitespace());
    Wrapper::try_parse_from(words).map(|wrapper| wrapper.args)
}

#[test]
fn sizes_have_binary_units() {
    assert_eq!(parse_size("64M"), Ok(64 << 20));
    assert_eq!(parse_size("1GiB"), Ok(1 << 30));
    assert_eq!(parse_size("4096"), Ok(4096));
    assert_eq!(parse_size("3kb"), Ok(3072));
    for bad in ["", "M", "1X", "-1M", "99999999T", "1", "1.5G"] {
        assert!(parse_size(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_lines_of_spdks_scripts_are_understood() {
    for line in [
        "-m 0x3 -r /tmp/s.sock",
        "-m [0,1] -p 1 -s 1024 -i 0 -e 0xFFFF",
        "--wait-for-rpc -m 0x1 -R -g -u -d -n 4",
        "-S /var/tmp -s 1024 -m 0x3 -f /run/vhost.pid --no-huge",
        "-c config.json --json-ignore-init-errors",
        "--json config.json --interrupt-mode",
        "--huge-dir /mnt/huge --silence-noticelog -L nvmf -L bdev --iova-mode va",
        "--rpcs-allowed rpc_get_methods,spdk_get_version --no-rpc-server",
        "--lcores 0-1 -A 0000:01:00.0 -B 0000:02:00.0 --base-virtaddr 0x200000000000",
    ] {
        let parsed = parse(line);
        assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
    }
    assert!(parse("--no-such-option").is_err());
}

#[test]
fn modes_are_octal() {
    let mode = |line: &str| parse(line).map(|args| args.rpc_socket_mode).ok();
    assert_eq!(mode(""), Some(0o600));
    assert_eq!(mode("--rpc-socket-mode 0660"), Some(0o660));
    assert_eq!(mode("--rpc-socket-mode 666"), Some(0o666));
    for bad in ["", "0888", "rw", "-1", "01777", "0x1ff"] {
        assert_eq!(mode(&format!("--rpc-socket-mode={bad}")), None, "{bad}");
    }
}

#[test]
fn the_socket_for_monitoring_is_a_second_one() {
    assert!(parse("--rpc-socket-readonly /run/m.sock --rpc-socket-readonly-group nogroup").is_ok());
    assert!(parse("--rpc-socket-readonly-group nogroup").is_err());
    assert!(parse("--rpc-socket-readonly /run/m.sock --no-rpc-server").is_err());
    assert!(parse("--rpc-clients 0").is_err());
    assert!(parse("--rpc-request-time 0").is_err());
}

#[test]
fn the_demonstration_disk_needs_silence() {
    let demo = |line| parse(line).map(|args| args.wants_demo()).ok();
    assert_eq!(demo(""), Some(true));
    assert_eq!(demo("-m 0x1 --reactor-mode poll"), Some(true));
    assert_eq!(demo("--endpoint /run/x"), Some(true));
    assert_eq!(demo("--attach vhost"), Some(true));
    assert_eq!(demo("--attach virtio -S /run/x"), Some(true));
    assert_eq!(demo("--attach virtio --ram 1M"), Some(false));
    assert_eq!(demo("-S /run/x"), Some(false));
    assert_eq!(demo("--endpoint /run/x --ram 1M"), Some(false));
    assert_eq!(demo("-r /tmp/s.sock"), Some(false));
    assert_eq!(demo("-c file"), Some(false));
    assert_eq!(demo("--wait-for-rpc"), Some(false));
}
