# Installs the build in BUILD_DIR into a temporary prefix, then builds and runs PROJECT_DIR against it, once through
# find_package and once through pkg-config.

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  message("${output}")
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "embed: this failed with ${status}: ${command}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK_DIR})
set(prefix ${WORK_DIR}/prefix)
run(${CMAKE_COMMAND} --install ${BUILD_DIR} --config ${CONFIG} --prefix ${prefix})

set(ENV{PKG_CONFIG_PATH} ${prefix}/${LIBDIR}/pkgconfig)
foreach(way OFF ON)
  set(build ${WORK_DIR}/pkg-config-${way})
  run(${CMAKE_COMMAND} -S ${PROJECT_DIR} -B ${build} -DCMAKE_PREFIX_PATH=${prefix} -DUSE_PKG_CONFIG=${way}
      -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_BUILD_TYPE=${CONFIG})
  run(${CMAKE_COMMAND} --build ${build} --config ${CONFIG})
  run(${CMAKE_COMMAND} -E env LD_LIBRARY_PATH=${prefix}/${LIBDIR} ${build}/embed)
endforeach()
