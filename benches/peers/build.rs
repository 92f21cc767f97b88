//! Generates the tonic service; without a .proto file, so that no protoc is needed.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let echo = Method::builder()
        .name("echo")
        .route_name("Echo")
        .input_type("crate::systems::tonic::EchoMessage")
        .output_type("crate::systems::tonic::EchoMessage")
        .codec_path("crate::systems::tonic::SmallBuffers")
        .build();
    let service = Service::builder().name("Echo").package("bench").method(echo).build();
    Builder::new().compile(&[service]);
}
