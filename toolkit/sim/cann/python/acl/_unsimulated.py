"""What exists on hardware but not here: the names are there, calling them says so."""

from ._args import Registry, stub

# sub-module, CANN version that brought it
PARTS = (("media", ""), ("op", ""), ("blas", ""), ("prof", ""), ("himpi", "5.1"), ("fv", "5.1"))

runtime = Registry("acl.rt")
runtime.not_simulated(
    "binary_load_from_file binary_load_from_data get_function_addr get_function_name register_cpu_func "
    "create_binary destroy_binary binary_load binary_unload binary_get_function launch_kernel "
    "kernel_args_init kernel_args_init_by_user_mem kernel_args_get_mem_size "
    "kernel_args_get_handle_mem_size kernel_args_append kernel_args_append_place_holder "
    "kernel_args_get_place_holder_buffer kernel_args_para_update kernel_args_finalize "
    "launch_kernel_with_config set_device_sat_mode get_device_sat_mode ctx_get_current_default_stream "
    "get_overflow_status reset_overflow_status set_stream_overflow_switch get_stream_overflow_switch "
    "set_stream_failure_mode get_event_id get_event_avail_num set_stream_attribute get_stream_attribute "
    "get_thread_last_task_id reduce_async reserve_mem_address release_mem_address malloc_physical "
    "free_physical malloc_with_cfg malloc_for_task_scheduler malloc_host_with_cfg map_mem unmap_mem "
    "mem_export_to_shareable_handle device_get_bare_tgid mem_set_pid_to_shareable_handle "
    "mem_import_from_shareable_handle mem_get_allocation_granularity ctx_set_sys_param_opt "
    "ctx_get_sys_param_opt set_sys_param_opt get_sys_param_opt allocator_create_desc "
    "allocator_destroy_desc allocator_set_obj_to_desc allocator_set_alloc_func_to_desc "
    "allocator_set_free_func_to_desc allocator_set_alloc_advise_func_to_desc "
    "allocator_set_get_addr_from_block_func_to_desc allocator_register allocator_unregister cmo_async "
    "device_task_abort memcpy_async_with_condition stream_abort pointer_get_attributes host_register "
    "host_unregister get_memcpy_desc_size set_memcpy_desc memcpy_async_with_desc value_write value_wait "
    "ipc_mem_get_export_key ipc_mem_set_import_pid ipc_mem_import_by_key ipc_mem_close "
    "device_get_stream_priority_range get_device_res_limit set_device_res_limit reset_device_res_limit "
    "get_devices_topo".split(),
    since="8.0",
)
runtime.not_simulated(
    "create_notify destroy_notify record_notify wait_and_reset_notify get_notify_id notify_batch_reset "
    "notify_get_export_key notify_set_import_pid notify_import_by_key get_stream_res_limit set_stream_res_limit "
    "reset_stream_res_limit use_stream_res_in_current_thread unuse_stream_res_in_current_thread "
    "get_res_in_current_thread get_primary_ctx_state get_logic_dev_id_by_user_dev_id "
    "get_user_dev_id_by_logic_dev_id get_logic_dev_id_by_phy_dev_id get_phy_dev_id_by_logic_dev_id "
    "set_op_execute_timeout_v2 get_op_timeout_interval get_op_execute_timeout device_get_uuid "
    "device_peer_access_status host_register_v2 host_get_device_pointer".split(),
    since="8.5",
)

model = Registry("acl.mdl")
model.not_simulated(
    "create_and_get_op_desc dump_reg_callback dump_unreg_callback bundle_load_from_file "
    "bundle_load_from_mem bundle_unload bundle_get_model_id bundle_get_model_num".split(),
    since="8.0",
)


def attribute(module):
    """Return a module-level ``__getattr__``: every public name is a function that says it is not
    simulated."""

    def __getattr__(name):
        if name.startswith("_"):
            raise AttributeError("module {!r} has no attribute {!r}".format(module, name))
        return stub(module, name)

    return __getattr__
