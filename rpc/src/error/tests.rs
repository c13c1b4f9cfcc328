use super::*;

#[test]
fn errno_speaks_the_c_library_s_words_then_the_reason() {
    let error = RpcError::errno(Errno::ENODEV, "no bdev is called Malloc7");
    assert_eq!(error.code, -19);
    assert_eq!(error.message, "No such device: no bdev is called Malloc7");
    assert_eq!(
        RpcError::errno(Errno::EEXIST, "x").message,
        "File exists: x"
    );
    assert_eq!(
        RpcError::errno(Errno::EOPNOTSUPP, "x").message,
        "Operation not supported: x"
    );
}

#[test]
fn an_errno_of_either_sign_means_the_same_and_zero_is_never_sent() {
    assert_eq!(RpcError::os_error(-17, "x"), RpcError::os_error(17, "x"));
    assert_eq!(RpcError::os_error(0, "x").code, -5);
    assert_eq!(RpcError::os_error(i32::MIN, "x").code, -5);
}

#[test]
fn io_errors_without_an_errno_keep_their_text() {
    let error = RpcError::io(&std::io::Error::other("torn"), "reading /x");
    assert_eq!(error.code, -5);
    assert_eq!(error.message, "Input/output error: reading /x (torn)");
    let error = RpcError::io(&std::io::Error::from_raw_os_error(2), "opening /x");
    assert_eq!(error.message, "No such file or directory: opening /x");
}

#[test]
fn standard_errors_have_the_standard_codes() {
    let codes = [
        (RpcError::parse_error("x").code, -32700),
        (RpcError::invalid_request("x").code, -32600),
        (RpcError::method_not_found().code, -32601),
        (RpcError::invalid_params("x").code, -32602),
        (RpcError::internal("x").code, -32603),
        (RpcError::wrong_state("x").code, -1),
    ];
    for (got, want) in codes {
        assert_eq!(got, want);
    }
    assert_eq!(RpcError::method_not_found().message, "Method not found");
}

#[test]
fn it_travels_as_code_and_message() {
    let error = RpcError::invalid_params("name: missing");
    let text = serde_json::to_string(&error).unwrap();
    assert_eq!(
        text,
        r#"{"code":-32602,"message":"Invalid parameters: name: missing"}"#
    );
    assert_eq!(serde_json::from_str::<RpcError>(&text).unwrap(), error);
}
