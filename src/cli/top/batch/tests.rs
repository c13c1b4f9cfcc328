use super::*;
use crate::cli::top::samples;

#[test]
fn text_has_every_table_with_every_column() {
    let expected = [
        "vtarget 1.2.3, pid 4711, up 1m42s: 2 reactors, 3 bdevs, 2 guests",
        "262k IOPS, 1061 MB/s read, 12.3 MB/s written, reactors 65.5 % busy, over 2.0 s",
        "",
        "REACTOR  MODE      BUSY %  IN FLIGHT  ENTERS/S  POLLERS",
        "0        adaptive    96.0         31     1.50k        2",
        "1        adaptive    35.0         31     1.50k        2",
        "",
        "BDEV    IOPS  READ/S  WRITE/S  R MB/S  W MB/S      P50      P99    R P99    W P99  QD  HELD  LIMITS     ERRORS  PRODUCT",
        "disk1   250k    250k        0    1024       0  5.00 µs  9.90 µs  9.90 µs        -   0     0  -               3  Malloc disk",
        "disk0  12.0k   9.00k    3.00k    36.9    12.3  17.4 µs  99.4 µs   100 µs  99.2 µs  31     5  12k 100Mr       0  URING bdev",
        "spare      0       0        0       0       0        -        -        -        -   0     0  -               0  Null disk",
        "",
        "CONTROLLER        KIND            STATE       IOPS  R MB/S  W MB/S  QD  QUEUES  IRQ/S  ERRORS  REACTOR  DISKS",
        "vhost.1           vhost_blk       enabled     250k     768     256  16       1   125k       0        1  disk1",
        "/run/vtarget/vm0  nvme            enabled    12.0k    36.9    12.3  31       2  6.00k       0        0  disk0",
        "virtio.2          vfu_virtio_blk  listening      0       0       0   0       0      0       0        0",
    ];
    assert_eq!(
        text(&samples::model(), Style::default()),
        expected.join("\n")
    );
}
