//! Modules for the crate `xla` (xla-rs), which binds XLA's C++ library.

use prost::Message;

use crate::hlo::HloModuleProto;

/// XLA's messages around a module. The crate tries to read bytes as a snapshot first, and takes a module of an
/// unlucky name, such as `attention`, for one.
#[derive(Clone, PartialEq, Message)]
struct HloSnapshot {
    #[prost(message, optional, tag = "1")]
    hlo: Option<HloProto>,
}

#[derive(Clone, PartialEq, Message)]
struct HloProto {
    #[prost(message, optional, tag = "1")]
    hlo_module: Option<HloModuleProto>,
}

impl HloModuleProto {
    /// The module as a computation of the crate `xla`, version 0.5, to be compiled by one of its clients.
    ///
    /// With the Cargo feature `xla-rs`. The crate links XLA's C++ library, which it finds in the folder
    /// `XLA_EXTENSION_DIR`; with the environment variable `DOCS_RS` set, it builds without, to be checked but not
    /// linked. Its build needs libclang in either case.
    ///
    /// # Errors
    /// The crate's own, where that library does not take the module.
    ///
    /// ```no_run
    /// use xlann::{DType, Function, Shape, lower, target};
    ///
    /// let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
    /// let module = lower::lower(&f, &target::cpu::CAPABILITIES, &lower::Options::default())?.module;
    /// let client = xla::PjRtClient::cpu()?;
    /// let double = client.compile(&module.to_xla_computation()?)?;
    /// let results = double.execute(&[xla::Literal::vec1(&[1f32, 2.0, 3.0])])?;
    /// assert_eq!(results[0][0].to_literal_sync()?.to_vec::<f32>()?, [2.0, 4.0, 6.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_xla_computation(&self) -> xla::Result<xla::XlaComputation> {
        let snapshot = HloSnapshot { hlo: Some(HloProto { hlo_module: Some(self.clone()) }) };
        let proto = xla::HloModuleProto::parse_proto(&snapshot.encode_to_vec(), true)?;
        Ok(xla::XlaComputation::from_proto(&proto))
    }
}
