# Flags and sanitizers sit on one interface target; pls_room() and pls_test() are all a room needs.

set(PLS_SANITIZE "" CACHE STRING "Sanitizers to build with: empty, address,undefined or thread")

add_library(pls_flags INTERFACE)
target_compile_features(pls_flags INTERFACE c_std_11)
target_compile_definitions(pls_flags INTERFACE _GNU_SOURCE)
target_include_directories(pls_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(pls_flags INTERFACE
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
  -Wno-unused-parameter -fno-strict-aliasing -fvisibility=hidden -pthread)
target_link_options(pls_flags INTERFACE -pthread)
if(PLS_WERROR)
  target_compile_options(pls_flags INTERFACE -Werror)
endif()
if(PLS_SANITIZE)
  target_compile_options(pls_flags INTERFACE -fsanitize=${PLS_SANITIZE}
    -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  target_link_options(pls_flags INTERFACE -fsanitize=${PLS_SANITIZE})
endif()

# pls_room(NAME SOURCES file.c... [USES room...] [LIBRARIES lib...]): the static library of one room.
# USES are the only rooms whose headers it may include; scripts/tidy.py checks the same arrows.
function(pls_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;USES;LIBRARIES" ${ARGN})
  add_library(pls_${name} STATIC ${ROOM_SOURCES})
  set_target_properties(pls_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(pls_${name} PRIVATE pls_flags PUBLIC ${ROOM_LIBRARIES})
  foreach(used ${ROOM_USES})
    target_link_libraries(pls_${name} PUBLIC pls_${used})
  endforeach()
endfunction()

# Every program that links Check gets tests/check_child.c before it, which keeps the assertions of a
# test's children out of the file that Check reads.
function(pls_check_children)
  add_library(pls_check_child STATIC ${PROJECT_SOURCE_DIR}/tests/check_child.c)
  target_include_directories(pls_check_child PRIVATE ${CHECK_INCLUDE_DIRS})
  target_link_libraries(pls_check_child PRIVATE pls_flags)
  get_target_property(check_libraries PkgConfig::CHECK INTERFACE_LINK_LIBRARIES)
  set_target_properties(PkgConfig::CHECK PROPERTIES
    INTERFACE_LINK_LIBRARIES "pls_check_child;${check_libraries}")
  set_property(TARGET PkgConfig::CHECK APPEND PROPERTY INTERFACE_LINK_OPTIONS
    -Wl,--wrap=_mark_point -Wl,--wrap=_ck_assert_failed)
endfunction()

# pls_test(ROOM NOUN [SOURCES extra.c...] [USES room...] [LIBRARIES lib...] [LABELS l...] [TIMEOUT s]):
# tests/ROOM/NOUN_test.c as a Check program, known to ctest as ROOM.NOUN.
function(pls_test room noun)
  cmake_parse_arguments(TEST "" "TIMEOUT" "SOURCES;USES;LIBRARIES;LABELS" ${ARGN})
  if(NOT PLS_TESTS)
    return()
  endif()
  set(target ${room}_${noun}_test)
  add_executable(${target} ${PROJECT_SOURCE_DIR}/tests/${room}/${noun}_test.c ${TEST_SOURCES})
  if(NOT TEST_USES)
    set(TEST_USES ${room})
  endif()
  list(TRANSFORM TEST_USES PREPEND pls_)
  target_link_libraries(${target} PRIVATE pls_flags ${TEST_USES} ${TEST_LIBRARIES}
    PkgConfig::CHECK)
  add_test(NAME ${room}.${noun} COMMAND ${target})
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 120)
  endif()
  set_tests_properties(${room}.${noun} PROPERTIES TIMEOUT ${TEST_TIMEOUT}
    LABELS "${room};${TEST_LABELS}")
endfunction()
